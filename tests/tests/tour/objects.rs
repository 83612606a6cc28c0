//! Objects come, change and go; and every way in which they can be looked at.

use crate::step::{Step, run};

/// Files of these stops.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("colours/kustomization.yaml", "resources: [base.yaml]\nnamePrefix: my-\nlabels: [{pairs: {team: paint}}]\n"),
    ("colours/base.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: colours}\ndata: {first: blue}\n"),
    ("settings.env", "HOST=localhost\nPORT=80\n"),
];

const SKY: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: sky\n  labels: {kind: sky}\ndata:\n  colour: blue\n";
const GREY: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: sky\n  labels: {kind: sky}\ndata:\n  colour: grey\n";
const WRONG: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: wrong}\ndatum: {a: b}\n";
const WRONG_TOO: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: wrong-too}\ndatum: {a: b}\n";
const NO_VALUE: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 'Not Valid'}\n";

pub(crate) const STEPS: &[Step] = &[
    run("create configmap sea --from-literal=colour=blue --from-literal=depth=3").prints("configmap/sea created\n"),
    run("create configmap sea --from-literal=a=b").fails().says(&["configmaps \"sea\" already exists"]),
    run("create configmap env --from-env-file=settings.env").prints("configmap/env created\n"),
    run("get configmap env -o jsonpath={.data.HOST}:{.data.PORT}").prints("localhost:80"),
    run("create -f -").reads(WRONG).fails().says(&["strict decoding error", "unknown field \"datum\""]),
    run("create -f -").reads(NO_VALUE).fails().says(&["metadata.name: Invalid value", "RFC 1123"]),
    run("apply -f -").reads(SKY).prints("configmap/sky created\n"),
    run("apply -f -").reads(SKY).prints("configmap/sky unchanged\n"),
    run("diff -f -").reads(SKY).prints(""),
    run("diff -f -").reads(GREY).fails().says(&["-  colour: blue", "+  colour: grey"]),
    run("apply -f - --dry-run=server").reads(GREY).prints("configmap/sky configured (server dry run)\n"),
    run("apply -f - --dry-run=client").reads(GREY).prints("configmap/sky configured (dry run)\n"),
    run("get configmap sky -o jsonpath={.data.colour}").prints("blue"),
    run("edit configmap sky").says(&["configmap/sky edited"]),
    run("get configmap sky -o jsonpath={.data.colour}").prints("green"),
    run("apply view-last-applied configmap/sky").says(&["colour: green"]),
    run("apply set-last-applied -f -").reads(GREY).prints("configmap/sky configured\n"),
    run("replace -f -").reads(GREY).prints("configmap/sky replaced\n"),
    run("apply --server-side -f - --field-manager=other").reads(SKY).fails().says(&["conflict", ".data.colour"]),
    run("apply --server-side -f - --field-manager=other --force-conflicts")
        .reads(SKY)
        .prints("configmap/sky serverside-applied\n"),
    run("get configmap sky -o yaml --show-managed-fields").says(&["manager: other", "operation: Apply"]),
    run("patch configmap sky -p '{\"data\":{\"extra\":\"1\"}}'").prints("configmap/sky patched\n"),
    run("patch configmap sky -p '{\"data\":{\"extra\":\"1\"}}'").prints("configmap/sky patched (no change)\n"),
    run("patch configmap sky --type=merge -p '{\"data\":{\"extra\":null}}'").prints("configmap/sky patched\n"),
    run("patch configmap sky --type=json -p '[{\"op\":\"add\",\"path\":\"/data/more\",\"value\":\"2\"}]'")
        .prints("configmap/sky patched\n"),
    run("patch configmap sky --type=json -p '[{\"op\":\"test\",\"path\":\"/data/more\",\"value\":\"3\"}]'").fails(),
    run("get configmap sky -o go-template='{{.data.more}}{{.data.extra}}'").prints("2<no value>"),
    run("label configmap sky weather=fine").prints("configmap/sky labeled\n"),
    run("label configmap sky weather=bad").fails().says(&["'weather' already has a value (fine)"]),
    run("label configmap sky weather=bad --overwrite").prints("configmap/sky labeled\n"),
    run("label configmap sky --list").says(&["kind=sky", "weather=bad"]),
    run("label configmap sky weather-").prints("configmap/sky unlabeled\n"),
    run("annotate configmap sky note='a long word'").prints("configmap/sky annotated\n"),
    run("annotate configmap sky --list").says(&["note=a long word"]),
    run("annotate configmap sky note-").prints("configmap/sky annotated\n"),
    run("create configmap dry --from-literal=a=b --dry-run=server -o jsonpath={.metadata.uid}").says(&["-"]),
    run("get configmap dry").fails().says(&["not found"]),
    run("create -f - --validate=warn")
        .reads(WRONG)
        .says(&["Warning: unknown field \"datum\"", "configmap/wrong created"]),
    run("create -f - --validate=ignore --dry-run=server")
        .reads(WRONG_TOO)
        .says(&["configmap/wrong-too created"])
        .lacks(&["Warning"]),
    run("replace --force -f -").reads(GREY).says(&["configmap \"sky\" deleted", "configmap/sky replaced"]),
    run("get configmap sky -o jsonpath={.data}").prints("{\"colour\":\"grey\"}"),
    run("patch configmap sky --type=merge -p '{\"data\":{\"more\":\"2\"}}'").prints("configmap/sky patched\n"),
    run("create -f colours/base.yaml --save-config").prints("configmap/colours created\n"),
    run("apply edit-last-applied configmap/colours").prints("configmap/colours edited\n"),
    run("apply edit-last-applied configmap/colours").says(&["no changes made"]),
    run("apply view-last-applied configmap/colours").says(&["first: green"]),
    run("get -f colours/base.yaml -o name").prints("configmap/colours\n"),
    run("describe -f colours/base.yaml").says(&["first:\n----\nblue"]),
    run("delete -f colours/base.yaml").says(&["configmap \"colours\" deleted"]),
    run("create configmap sky2 --from-file=colours/base.yaml --dry-run=client -o name").prints("configmap/sky2\n"),
    run("kustomize colours").says(&["name: my-colours", "team: paint"]),
    run("apply -k colours").prints("configmap/my-colours created\n"),
    run("apply -k colours --prune -l team=paint").says(&["configmap/my-colours unchanged"]),
    run("delete -k colours").says(&["configmap \"my-colours\" deleted"]),
    run("wait --for=jsonpath={.data.more}=2 configmap/sky --timeout=5s").prints("configmap/sky condition met\n"),
    run("wait --for=delete configmap/my-colours --timeout=5s"),
    run("wait --for=create configmap/sky --timeout=5s").prints("configmap/sky condition met\n"),
    run("wait --for=create configmap/none --timeout=1s").fails().says(&["timed out"]),
    run("wait --for=jsonpath={.data.more}=9 configmap/sky --timeout=1s").fails().says(&["timed out"]),
    run("create namespace short-lived").prints("namespace/short-lived created\n"),
    run("delete namespace short-lived --timeout=30s").says(&["namespace \"short-lived\" deleted"]),
    run("delete configmap sea env").says(&["\"sea\" deleted", "\"env\" deleted"]),
    run("delete configmap sea").fails().says(&["configmaps \"sea\" not found"]),
    run("delete configmap sea --ignore-not-found").lacks(&["Error"]),
    run("delete configmaps --all").says(&["\"sky\" deleted"]),
];

pub(crate) const OUTPUT: &[Step] = &[
    run("create configmap b --from-literal=n=2").says(&["created"]),
    run("create configmap a --from-literal=n=1").says(&["created"]),
    run("create configmap c --from-literal=n=3").says(&["created"]),
    run("label configmap a c odd=yes").says(&["configmap/a labeled", "configmap/c labeled"]),
    run("delete configmap kube-root-ca.crt --ignore-not-found"),
    run("get configmaps a b c").says(&["NAME", "DATA", "AGE"]),
    run("get configmaps -l odd=yes -o name").prints("configmap/a\nconfigmap/c\n"),
    run("get configmaps -l odd!=yes -o name").says(&["configmap/b\n"]).lacks(&["configmap/a"]),
    run("get configmaps -l 'odd in (yes, no)' --no-headers").says(&["a ", "c "]).lacks(&["NAME"]),
    run("get configmaps -l odd --sort-by={.data.n} -o custom-columns=NAME:.metadata.name,N:.data.n")
        .prints("NAME   N\na      1\nc      3\n"),
    run("get configmaps --field-selector=metadata.name=b -o name").prints("configmap/b\n"),
    run("get configmaps --field-selector=metadata.colour=b").fails().says(&["field label not supported"]),
    run("get configmap a -o json").says(&["\"kind\": \"ConfigMap\"", "\"n\": \"1\""]),
    run("get configmap a -o yaml").says(&["kind: ConfigMap", "\"n\": \"1\""]).lacks(&["managedFields"]),
    run("get configmaps a c -o jsonpath='{range .items[*]}{.metadata.name}={.data.n} {end}'").prints("a=1 c=3 "),
    run("get configmaps -l odd=yes -o wide").says(&["NAME"]),
    run("get configmaps -l odd=yes --show-labels").says(&["LABELS", "odd=yes"]),
    run("get configmaps -l odd=yes -L odd").says(&["ODD", "yes"]),
    run("get configmaps --all-namespaces").says(&["NAMESPACE", "output"]),
    run("get configmaps --chunk-size=1 -o name").says(&["configmap/a\nconfigmap/b\nconfigmap/c\n"]),
    run("get configmaps a -w --request-timeout=2s --output-watch-events").says(&["EVENT", "ADDED"]),
    run("get configmap,serviceaccount -o name").says(&["configmap/a", "serviceaccount/default"]),
    run("get cm/a sa/default -o name").prints("configmap/a\nserviceaccount/default\n"),
    run("get configmap none").fails().says(&["Error from server (NotFound): configmaps \"none\" not found"]),
    run("get no-such-thing").fails().says(&["the server doesn't have a resource type \"no-such-thing\""]),
    run("get --raw /api/v1/namespaces/output/configmaps/a").says(&["\"n\":\"1\""]),
    run("describe configmap a").says(&["Name:         a", "n:\n----\n1"]),
    run("get all").says(&["No resources found in output namespace."]),
];
