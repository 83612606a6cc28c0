//! A workload that sleeps while nobody needs it.

use crate::check::{Check, inside, outside};

pub(crate) const OBJECTS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: dormouse, annotations: {shipway.io/sleep-after: 2s}}
spec:
  selector: {matchLabels: {app: dormouse}}
  template:
    metadata: {labels: {app: dormouse}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: c
        image: python:3
        imagePullPolicy: Never
        command: [sh, -c, "mkdir /www; hostname > /www/index.html; exec httpd -f -p 8080 -h /www"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: dormouse}
spec: {type: NodePort, selector: {app: dormouse}, ports: [{port: 80, targetPort: 8080, nodePort: 31473}]}
"#;

const REPLICAS: &str =
    "kubectl get deployment dormouse -o jsonpath='{.spec.replicas} {.metadata.annotations.shipway\\.io/slept-with}'";

pub(crate) const CHECKS: &[Check] = &[
    outside("a workload that nobody uses sleeps and remembers its size", REPLICAS).says("0 1"),
    outside("its pods are gone", "kubectl get pods -l app=dormouse -o name | wc -l").says("0"),
    outside("a connection wakes it and is answered", "curl -sfm20 http://127.0.0.1:31473").says("dormouse-"),
    outside("awake it has its size again", REPLICAS).says("1"),
    outside("it sleeps again", REPLICAS).says("0 1"),
    outside("its pods are gone again", "kubectl get pods -l app=dormouse -o name | wc -l").says("0"),
    inside("a pod wakes it as well", "client", "fetch http://dormouse").says("dormouse-"),
];
