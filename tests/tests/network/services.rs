//! Services of every kind, and ports of the host.

use crate::check::{Check, inside, outside};

pub(crate) const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: away, labels: {team: away}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, labels: {app: web, role: web}}
spec:
  hostname: web-0
  subdomain: peers
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: python:3
    imagePullPolicy: Never
    command: [sh, -c, "FETCH mkdir /www; hostname > /www/index.html; httpd -p 8081 -h /www; exec httpd -f -p 8080 -h /www"]
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web, role: web}}
spec:
  hostname: web-1
  subdomain: peers
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: python:3
    imagePullPolicy: Never
    command: [sh, -c, "FETCH mkdir /www; hostname > /www/index.html; httpd -p 8081 -h /www; exec httpd -f -p 8080 -h /www"]
    ports: [{name: http, containerPort: 8080, hostPort: 28471}]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {role: client}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: python:3
    imagePullPolicy: Never
    command: [sh, -c, "FETCH exec sleep 100000"]
    env: [{name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http, nodePort: 31471}, {name: other, port: 81, targetPort: 8081}]
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec:
  selector: {app: web}
  sessionAffinity: ClientIP
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: outer}
spec: {selector: {app: web}, externalIPs: [198.51.100.7], ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 28472, targetPort: 8080}]}
"#;

pub(crate) const CHECKS: &[Check] = &[
    inside("a service leads to its pods", "client", "fetch http://web").says("web-"),
    inside("a service leads to all of its pods", "client", "for i in $(seq 20); do fetch http://web; done | sort -u | wc -l").says("2"),
    inside("a second port of a service leads to another port of its pods", "client", "fetch http://web:81").says("web-"),
    inside("a port that a service does not have is refused at once", "client", "timeout 2 fetch http://web:82; test $? -eq 1"),
    inside("a service without pods is refused at once", "client", "timeout 2 fetch http://nobody; test $? -eq 1"),
    inside("a pod reaches itself through its service", "web-0", "for i in $(seq 20); do fetch http://web; done | sort -u | wc -l").says("2"),
    inside("affinity has one client meet one pod", "client", "for i in $(seq 12); do fetch http://sticky; done | sort -u | wc -l").says("1"),
    outside("a node port answers on loopback", "curl -sfm3 http://127.0.0.1:31471").says("web-"),
    outside("a node port answers on the host's own address", "curl -sfm3 http://$(hostname -I | cut -d' ' -f1):31471").says("web-"),
    inside("a node port answers pods", "client", "fetch http://$HOST_IP:31471").says("web-"),
    outside("a pod's port of the host leads to that pod", "curl -sfm3 http://127.0.0.1:28471").says("web-1"),
    outside("an external address of a service answers", "curl -sfm3 http://198.51.100.7").says("web-"),
    inside("an external address of a service answers pods", "client", "fetch http://198.51.100.7").says("web-"),
    outside("a load balancer answers at its port", "curl -sfm3 http://127.0.0.1:28472").says("web-"),
    outside("a load balancer says where it answers", "kubectl get service balanced -o jsonpath='{.status.loadBalancer.ingress[0].ip}' | xargs -I@ curl -sfm3 http://@:28472").says("web-"),
];

/// All pods are on this node; an endpoint that somebody wrote is on another.
pub(crate) const LOCAL: &str = r"
apiVersion: v1
kind: Service
metadata: {name: near}
spec:
  type: NodePort
  internalTrafficPolicy: Local
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 31472}]
---
apiVersion: v1
kind: Service
metadata: {name: far}
spec: {internalTrafficPolicy: Local, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: far-0, labels: {kubernetes.io/service-name: far}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.254.0.1], nodeName: another, conditions: {ready: true}}]
";

pub(crate) const STAYS: &[Check] = &[
    inside("traffic that stays on the node finds pods of the node", "client", "fetch http://near").says("web-"),
    outside("traffic from outside that stays on the node finds them too", "curl -sfm3 http://127.0.0.1:31472")
        .says("web-"),
    inside(
        "traffic that stays on the node does not leave for other nodes",
        "client",
        "timeout 2 fetch http://far; test $? -eq 1",
    ),
];

pub(crate) const ENDING: &str = "";

pub(crate) const GONE: &[Check] = &[
    outside("a pod can be deleted", "kubectl delete pod web-1 --wait=false").says("deleted"),
    inside(
        "a pod that ends gets no new connections",
        "client",
        "for i in $(seq 20); do fetch http://web || exit 1; done | sort -u",
    )
    .lacks("web-1"),
    outside("the port of the host is free when its pod is gone", "curl -sfm3 http://127.0.0.1:28471").fails(),
    inside("the name of a pod that is gone is gone", "client", "nslookup web-1.peers.default.svc.cluster.local")
        .fails(),
];
