//! DNS, asked with a real resolver in a pod.

use crate::check::{Check, inside};

pub(crate) const OBJECTS: &str = r"
apiVersion: v1
kind: Service
metadata: {name: peers}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: unready}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {app: slow}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: there, namespace: away}
spec: {selector: {app: there}, ports: [{port: 80}]}
";

pub(crate) const CHECKS: &[Check] = &[
    inside("a service has a name in its namespace", "client", "nslookup web.default.svc.cluster.local").says("Address"),
    inside("a short name is searched for in the own namespace", "client", "python3 -c 'import socket; print(socket.gethostbyname(\"web\"))'").says("10."),
    inside("a service of another namespace has a name", "client", "python3 -c 'import socket; print(socket.gethostbyname(\"there.away\"))'").says("10."),
    inside("a headless service has the addresses of all its pods", "client", "nslookup peers.default.svc.cluster.local | grep -c '^Address.*10\\.'").says("3"),
    inside("a pod of a headless service has a name of its own", "client", "fetch http://web-0.peers:8080").says("web-0"),
    inside("a port has its number and its hosts in DNS", "client", "nslookup -type=srv _http._tcp.peers.default.svc.cluster.local").says("8080 web-0.peers.default.svc.cluster.local"),
    inside("an address leads back to the name of its service", "client", "nslookup $WEB_SERVICE_HOST || nslookup $(nslookup web.default.svc.cluster.local | sed -n 's/^Address: *\\(10[0-9.]*\\)$/\\1/p' | tail -1)").says("web.default.svc.cluster.local"),
    inside("an address leads back to the name of its pod", "client", "nslookup $(nslookup web-0.peers.default.svc.cluster.local | sed -n 's/^Address: *\\(10[0-9.]*\\)$/\\1/p' | tail -1)").says("web-0.peers.default.svc.cluster.local"),
    inside("an external name is an alias", "client", "fetch http://alias").says("web-"),
    inside("what does not exist is denied at once", "client", "timeout 2 nslookup nothing.default.svc.cluster.local; test $? -eq 1"),
    inside("the version of the names is told", "client", "nslookup -type=txt dns-version.cluster.local").says("1.1.0"),
];
