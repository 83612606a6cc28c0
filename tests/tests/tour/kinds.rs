//! Every kind that `kubectl create` can make, as far as the server alone answers for it.

use crate::step::{Step, run};

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: v1
kind: LimitRange
metadata: {name: usual}
spec: {limits: [{type: Container, default: {memory: 64Mi}}]}
";
const SETS: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: numbered}
spec:
  replicas: 0
  serviceName: numbered
  selector: {matchLabels: {app: numbered}}
  template:
    metadata: {labels: {app: numbered}}
    spec: {containers: [{name: c, image: 'busybox:stable'}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec: {nodeSelector: {none: such}, containers: [{name: c, image: 'busybox:stable'}]}
";
const GADGET: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.tour.example}
spec:
  group: tour.example
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget, shortNames: [gd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What the gadget should be.
            properties:
              size: {type: integer, minimum: 1, default: 2}
          status: {type: object, properties: {size: {type: integer}}}
";
const ONE_GADGET: &str = "apiVersion: tour.example/v1\nkind: Gadget\nmetadata: {name: one}\nspec: {}\n";
const BAD_GADGET: &str = "apiVersion: tour.example/v1\nkind: Gadget\nmetadata: {name: bad}\nspec: {size: 0}\n";

pub(crate) const STEPS: &[Step] = &[
    run("create secret generic key --from-literal=word=sesame").prints("secret/key created\n"),
    run("get secret key -o jsonpath={.data.word}").prints("c2VzYW1l"),
    run("get secret key").says(&["Opaque", "1"]),
    run("create secret docker-registry pull --docker-server=r.example --docker-username=u --docker-password=p")
        .prints("secret/pull created\n"),
    run("get secret pull -o jsonpath={.type}").prints("kubernetes.io/dockerconfigjson"),
    run("create secret tls door --cert=door.crt --key=door.key").prints("secret/door created\n"),
    run("get secret door -o jsonpath={.type}").prints("kubernetes.io/tls"),
    run("describe secret key").says(&["Type:  Opaque", "word:  6 bytes"]).lacks(&["sesame"]),
    run("create job once --image=busybox:stable -- true").prints("job.batch/once created\n"),
    run("get job once").says(&["COMPLETIONS", "DURATION"]),
    run("create cronjob nightly --image=busybox:stable --schedule='0 3 * * *' -- true")
        .prints("cronjob.batch/nightly created\n"),
    run("create cronjob never --image=busybox:stable --schedule='x y' -- true").fails().says(&["spec.schedule"]),
    run("get cronjob nightly").says(&["SCHEDULE", "0 3 * * *", "False"]),
    run("create job by-hand --from=cronjob/nightly").prints("job.batch/by-hand created\n"),
    run("create ingress front --rule=a.example/*=web:80").prints("ingress.networking.k8s.io/front created\n"),
    run("get ingress front").says(&["HOSTS", "a.example"]),
    run("create quota small --hard=pods=5,configmaps=10").prints("resourcequota/small created\n"),
    run("get quota small -o jsonpath={.spec.hard.pods}").prints("5"),
    run("create poddisruptionbudget one --selector=app=web --min-available=1")
        .prints("poddisruptionbudget.policy/one created\n"),
    run("get pdb one").says(&["MIN AVAILABLE", "MAX UNAVAILABLE"]),
    run("create priorityclass tour-high --value=1000 --description=first")
        .prints("priorityclass.scheduling.k8s.io/tour-high created\n"),
    run("get priorityclass tour-high").says(&["VALUE", "1000", "false"]),
    run("create -f -")
        .reads(POLICY)
        .says(&["networkpolicy.networking.k8s.io/closed created", "limitrange/usual created"]),
    run("create -f -").reads(SETS).says(&["statefulset.apps/numbered created", "daemonset.apps/everywhere created"]),
    run("get statefulset,daemonset").says(&["statefulset.apps/numbered", "daemonset.apps/everywhere", "none=such"]),
    run("create -f -")
        .reads(GADGET)
        .prints("customresourcedefinition.apiextensions.k8s.io/gadgets.tour.example created\n"),
    run("wait --for=condition=Established crd/gadgets.tour.example --timeout=10s").says(&["condition met"]),
    run("apply -f -").reads(ONE_GADGET).prints("gadget.tour.example/one created\n").soon(),
    run("get gd one").says(&["SIZE", "2"]),
    run("create -f -").reads(BAD_GADGET).fails().says(&["spec.size: Invalid value: 0", "greater than or equal to 1"]),
    run("scale gadget/one --replicas=4").prints("gadget.tour.example/one scaled\n"),
    run("get gadget one -o jsonpath={.spec.size}").prints("4"),
    run("explain gadget.spec").says(&["What the gadget should be.", "size"]),
    run("delete crd gadgets.tour.example").says(&["\"gadgets.tour.example\" deleted"]),
    run("get gadgets").fails().says(&["could not find the requested resource"]).soon(),
    run("delete priorityclass tour-high").says(&["deleted"]),
];
