//! Deployments from their first rollout to their removal, with the service before them.

use crate::step::{Step, run};

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: nginx:1.27
        ports: [{containerPort: 80}]
        readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
";
const FOREIGN: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: other}}
  template:
    metadata: {labels: {app: other}}
    spec: {containers: [{name: web, image: 'nginx:1.27'}]}
";

pub(crate) const STEPS: &[Step] = &[
    run("apply -f -").reads(WEB).prints("deployment.apps/web created\n"),
    run("rollout status deployment/web --timeout=60s").says(&["deployment \"web\" successfully rolled out"]),
    run("get deployment web").says(&["READY", "UP-TO-DATE", "AVAILABLE", "2/2"]),
    run("get deployment web -o wide").says(&["CONTAINERS", "IMAGES", "SELECTOR", "nginx:1.27", "app=web"]),
    run("get all").says(&["pod/web-", "deployment.apps/web", "replicaset.apps/web-"]),
    run("wait --for=condition=Available deployment/web --timeout=20s").prints("deployment.apps/web condition met\n"),
    run("describe deployment web").says(&["RollingUpdateStrategy:", "Available      True", "NewReplicaSet:"]),
    run("replace -f -").reads(FOREIGN).fails().says(&["spec.selector", "field is immutable"]),
    run("scale deployment/web --replicas=3").prints("deployment.apps/web scaled\n"),
    run("scale deployment/web --replicas=1 --current-replicas=9").fails().says(&["Expected replicas to be 9, was 3"]),
    run("get deployment web -o jsonpath={.spec.replicas}").prints("3"),
    run("get --raw /apis/apps/v1/namespaces/workloads/deployments/web/scale").says(&["\"kind\":\"Scale\"", "app=web"]),
    run("get deployment web --subresource=status -o jsonpath={.status.readyReplicas}").says(&["3"]).soon(),
    run("exec deployment/web -- nginx -v").says(&["nginx version"]),
    run("logs deployment/web --tail=1").says(&["start worker process"]),
    run("patch deployment web --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":2}}'")
        .prints("scale.autoscaling/web patched\n"),
    run("get deployment web --subresource=scale -o jsonpath='{.kind} {.spec.replicas}'").prints("Scale 2"),
    run("rollout history deployment/web").says(&["REVISION", "CHANGE-CAUSE", "1         <none>"]),
    run("set image deployment/web web=nginx:1.15.4").prints("deployment.apps/web image updated\n"),
    run("annotate deployment/web kubernetes.io/change-cause='an older server'").says(&["annotated"]),
    run("rollout status deployment/web --timeout=60s").says(&["successfully rolled out"]),
    run("rollout history deployment/web").says(&["2         an older server"]).soon(),
    run("rollout history deployment/web --revision=1").says(&["nginx:1.27"]),
    run("rollout undo deployment/web").says(&["deployment.apps/web rolled back"]),
    run("rollout status deployment/web --timeout=60s").says(&["successfully rolled out"]),
    run("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}").prints("nginx:1.27"),
    run("rollout undo deployment/web --to-revision=77").fails().says(&["unable to find specified revision 77"]),
    run("rollout pause deployment/web").prints("deployment.apps/web paused\n"),
    run("rollout pause deployment/web").fails().says(&["already paused"]),
    run("set env deployment/web COLOUR=blue").prints("deployment.apps/web env updated\n"),
    run("set env deployment/web --list").says(&["COLOUR=blue"]),
    run("set env deployment/web COLOUR-").prints("deployment.apps/web env updated\n"),
    run("set resources deployment/web --limits=cpu=500m,memory=64Mi --requests=cpu=10m,memory=16Mi")
        .prints("deployment.apps/web resource requirements updated\n"),
    run("rollout resume deployment/web").prints("deployment.apps/web resumed\n"),
    run("rollout restart deployment/web").prints("deployment.apps/web restarted\n"),
    run("rollout status deployment/web --timeout=60s").says(&["successfully rolled out"]),
    run("get pods -l app=web -o jsonpath={.items[*].status.qosClass}").says(&["Burstable"]),
    run("create serviceaccount robot").prints("serviceaccount/robot created\n"),
    run("set serviceaccount deployment/web robot").prints("deployment.apps/web serviceaccount updated\n"),
    run("rollout status deployment/web --timeout=60s").says(&["successfully rolled out"]),
    run("expose deployment web --port=80").prints("service/web exposed\n"),
    run("get service web").says(&["ClusterIP", "80/TCP"]),
    run("describe service web").says(&["Endpoints:", ":80"]).soon(),
    run("get endpointslices -l kubernetes.io/service-name=web").says(&["IPv4", "80"]),
    run("set selector service/web app=nobody").prints("service/web selector updated\n"),
    run("get service web -o jsonpath={.spec.selector.app}").prints("nobody"),
    run("create service nodeport door --tcp=80:80").prints("service/door created\n"),
    run("create service loadbalancer front --tcp=8097:80").prints("service/front created\n"),
    run("create service clusterip headless --clusterip=None").prints("service/headless created\n"),
    run("create service externalname away --external-name=example.com").prints("service/away created\n"),
    run("get services -o custom-columns=NAME:.metadata.name,TYPE:.spec.type").says(&[
        "door       NodePort",
        "headless   ClusterIP",
        "away       ExternalName",
    ]),
    run("autoscale deployment web --min=1 --max=4 --cpu-percent=80")
        .says(&["horizontalpodautoscaler.autoscaling/web autoscaled"]),
    run("get hpa web").says(&["Deployment/web", "MINPODS"]),
    run("create deployment quick --image=nginx:1.27 --replicas=1 --port=80").prints("deployment.apps/quick created\n"),
    run("create deployment quick --image=nginx --dry-run=client -o yaml").says(&["kind: Deployment", "image: nginx"]),
    run("rollout status deployment/quick --timeout=60s").says(&["successfully rolled out"]),
    run("delete deployment quick --cascade=orphan").says(&["deployment.apps \"quick\" deleted"]),
    run("get replicasets -l app=quick -o name").says(&["replicaset.apps/quick-"]),
    run("delete replicasets -l app=quick --cascade=foreground").says(&["\"quick-"]),
    run("get pods -l app=quick").says(&["No resources found"]).soon(),
    run("delete deployment web --cascade=background").says(&["deployment.apps \"web\" deleted"]),
    run("get pods -l app=web").says(&["No resources found"]).soon(),
];
