//! Who may do what: roles, bindings, tokens, certificates.

use crate::step::{Step, run};

/// Files of this stop.
pub(crate) const FILES: &[(&str, &str)] = &[(
    "rules.yaml",
    "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: lister, namespace: access}
rules: [{apiGroups: [''], resources: [secrets], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: lister, namespace: access}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: lister}
subjects: [{kind: ServiceAccount, name: visitor, namespace: access}]
",
)];

/// A request that `openssl req -new -subj /CN=tour` made; its key is nowhere.
const REQUEST: &str = include_str!("request.yaml");

pub(crate) const STEPS: &[Step] = &[
    run("auth whoami").says(&["ATTRIBUTE", "Username", "system:masters"]),
    run("auth can-i create pods").prints("yes\n"),
    run("auth can-i '*' '*'").prints("yes\n"),
    run("auth can-i --list").says(&["Resources", "Verbs", "*.*"]),
    run("create serviceaccount visitor").prints("serviceaccount/visitor created\n"),
    run("create role reader --verb=get,list --resource=pods,configmaps").prints("role.rbac.authorization.k8s.io/reader created\n"),
    run("create rolebinding reader --role=reader --serviceaccount=access:visitor")
        .prints("rolebinding.rbac.authorization.k8s.io/reader created\n"),
    run("create clusterrole tour-looker --verb=get --resource=nodes").prints("clusterrole.rbac.authorization.k8s.io/tour-looker created\n"),
    run("create clusterrolebinding tour-looker --clusterrole=tour-looker --serviceaccount=access:visitor")
        .prints("clusterrolebinding.rbac.authorization.k8s.io/tour-looker created\n"),
    run("auth can-i list pods --as=system:serviceaccount:access:visitor").prints("yes\n").soon(),
    run("auth can-i delete pods --as=system:serviceaccount:access:visitor").fails().says(&["no"]),
    run("auth can-i get nodes --as=system:serviceaccount:access:visitor").says(&["yes"]).soon(),
    run("get pods --as=system:serviceaccount:access:visitor").says(&["No resources found"]),
    run("get secrets --as=system:serviceaccount:access:visitor").fails().says(&[
        "Error from server (Forbidden)",
        "User \"system:serviceaccount:access:visitor\" cannot list resource \"secrets\" in API group \"\" in the namespace \"access\"",
    ]),
    run("auth reconcile -f rules.yaml").says(&["role.rbac.authorization.k8s.io/lister reconciled"]),
    run("get secrets --as=system:serviceaccount:access:visitor").says(&["No resources found"]).soon(),
    run("auth can-i --list --as=system:serviceaccount:access:visitor").says(&["secrets", "[list]"]).lacks(&["*.*"]),
    run("set subject rolebinding reader --user=jane --group=readers")
        .prints("rolebinding.rbac.authorization.k8s.io/reader subjects updated\n"),
    run("auth can-i list pods --as=jane").prints("yes\n").soon(),
    run("auth can-i list pods --as=joe --as-group=readers").prints("yes\n"),
    run("auth can-i get pods --subresource=log --as=jane").fails().says(&["no"]),
    run("get rolebinding reader -o wide").says(&["jane", "readers", "access/visitor"]),
    run("auth whoami --as=jane -o jsonpath={.status.userInfo.username}").prints("jane"),
    run("describe role reader").says(&["PolicyRule:", "configmaps", "[get list]"]),
    run("get rolebinding reader -o wide").says(&["Role/reader", "access/visitor"]),
    run("create token visitor --duration=1h").says(&["eyJ"]),
    run("create token nobody").fails().says(&["serviceaccounts \"nobody\" not found"]),
    run("create -f -").reads(REQUEST).prints("certificatesigningrequest.certificates.k8s.io/tour created\n"),
    run("get csr tour").says(&["SIGNERNAME", "kubernetes.io/kube-apiserver-client", "Pending"]),
    run("certificate approve tour").prints("certificatesigningrequest.certificates.k8s.io/tour approved\n"),
    run("get csr tour").says(&["Approved,Issued"]).soon(),
    run("certificate deny tour").fails().says(&["already Approved"]),
    run("delete csr tour").says(&["\"tour\" deleted"]),
    run("create -f -").reads(REQUEST).prints("certificatesigningrequest.certificates.k8s.io/tour created\n"),
    run("certificate deny tour").prints("certificatesigningrequest.certificates.k8s.io/tour denied\n"),
    run("get csr tour").says(&["Denied"]),
    run("get csr tour -o jsonpath='{.status.conditions[*].reason}'").prints("KubectlDeny"),
    run("delete csr tour").says(&["\"tour\" deleted"]),
    run("delete clusterrolebinding,clusterrole tour-looker").says(&["deleted"]),
    run("get clusterroles admin edit view cluster-admin -o name").says(&["clusterrole.rbac.authorization.k8s.io/view"]),
];
