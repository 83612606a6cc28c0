//! Pods: run, look inside, copy, wait, and what they leave behind.

use crate::step::{Step, run};

const PAIR: &str = "
apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: one, image: 'busybox:stable', command: [sh, -c, 'echo from one; sleep 1000']}
  - {name: two, image: 'busybox:stable', command: [sh, -c, 'echo from two; sleep 1000']}
";

pub(crate) const STEPS: &[Step] = &[
    run("run worker --image=busybox:stable --restart=Never --labels=app=worker --overrides='{\"spec\":{\"terminationGracePeriodSeconds\":1}}' --command -- sh -c 'echo hello; cat'")
        .prints("pod/worker created\n"),
    run("run server --image=nginx:1.27 --port=80 --expose").says(&["service/server created", "pod/server created"]),
    run("apply -f -").reads(PAIR).prints("pod/pair created\n"),
    run("wait --for=condition=Ready pod/server pod/pair --timeout=30s")
        .prints("pod/server condition met\npod/pair condition met\n"),
    run("get pods").says(&["READY", "STATUS", "RESTARTS", "2/2", "Running"]),
    run("get pods -o wide").says(&["IP", "NODE", "NOMINATED NODE"]),
    run("get pod pair -o jsonpath='{.status.containerStatuses[*].name}'").prints("one two"),
    run("get pods --field-selector=status.phase=Running -o name").says(&["pod/pair", "pod/server"]),
    run("describe pod pair").says(&["Successfully assigned", "Container started", "QoS Class:"]),
    run("logs pair -c two").prints("from two\n"),
    run("logs pair --all-containers --prefix").says(&["[pod/pair/one] from one", "[pod/pair/two] from two"]),
    run("logs pair").says(&["from one"]),
    run("logs pair -c three").fails().says(&["container three is not valid for pod pair"]),
    run("logs -l run=server --tail=1").says(&["start worker process"]).lacks(&["Error"]),
    run("logs pair -c one --since=1h --tail=5").prints("from one\n"),
    run("logs pair -c one --since-time=2100-01-01T00:00:00Z").prints(""),
    run("logs pair -c one --limit-bytes=4").prints("from"),
    run("logs pair -c one --timestamps").says(&["Z from one"]),
    run("logs pair -c one --previous").fails().says(&["previous terminated container \"one\" in pod \"pair\" not found"]),
    run("exec pair -c one -- echo inside").prints("inside\n"),
    run("exec pair -c one -- sh -c 'exit 7'").fails().says(&["exit code 7"]),
    run("exec pair -c one -- sh -c 'echo aside >&2'").prints("").says(&["aside"]),
    run("exec -i pair -c one -- cat").reads("through\n").prints("through\n"),
    run("exec pair -c one -- no-such-tool").fails().says(&["no-such-tool"]),
    run("exec nobody -- true").fails().says(&["pods \"nobody\" not found"]),
    run("cp settings.env pair:/tmp/settings -c one"),
    run("exec pair -c one -- cat /tmp/settings").prints("HOST=localhost\nPORT=80\n"),
    run("cp pair:/tmp/settings back.env -c one"),
    run("cp colours pair:/tmp/colours -c one"),
    run("exec pair -c one -- cat /tmp/colours/base.yaml").says(&["first: blue"]),
    run("cp pair:/tmp/colours colours-back -c one"),
    run("create -f colours-back/base.yaml --dry-run=client -o name").prints("configmap/colours\n"),
    run("cp no-such-file pair:/tmp/nothing -c one").fails().says(&["no-such-file"]),
    run("create configmap back --from-env-file=back.env").prints("configmap/back created\n"),
    run("run once --image=busybox:stable --restart=Never --rm -i --quiet -- echo seen").says(&["seen"]),
    run("run failing --image=busybox:stable --restart=Never -- sh -c 'exit 3'").prints("pod/failing created\n"),
    run("wait --for=jsonpath={.status.phase}=Failed pod/failing --timeout=20s").says(&["condition met"]),
    run("get pod failing").says(&["Error"]),
    run("debug pair -c helper --image=busybox:stable --target=one --profile=general -- sleep 1000")
        .says(&["Targeting container \"one\""]),
    run("get pod pair -o jsonpath={.spec.ephemeralContainers[0].name}").prints("helper"),
    run("get pod pair -o jsonpath={.status.ephemeralContainerStatuses[0].state.running.startedAt}").says(&["Z"]).soon(),
    run("debug pair --copy-to=twin --set-image=*=busybox:1.36 --share-processes"),
    run("wait --for=condition=Ready pod/twin --timeout=20s").prints("pod/twin condition met\n"),
    run("get pod twin -o jsonpath='{.spec.shareProcessNamespace} {.spec.containers[*].image}'").prints("true busybox:1.36 busybox:1.36"),
    run("exec twin -c two -- ps").says(&["sleep 1000"]),
    run("delete pod twin --grace-period=1").says(&["pod \"twin\" deleted"]),
    run("events --types=Normal --for pod/twin").says(&["Killing", "Pod/twin"]).soon(),
    run("events --for pod/pair").says(&["Scheduled", "Started"]),
    run("get events --field-selector=involvedObject.name=failing -o name").says(&["event/failing."]),
    run("get events --sort-by=.metadata.creationTimestamp").says(&["LAST SEEN", "REASON"]),
    run("label pod pair tier=front").prints("pod/pair labeled\n"),
    run("set image pod/pair one=busybox:1.36").prints("pod/pair image updated\n"),
    run("patch pod pair -p '{\"spec\":{\"nodeName\":\"elsewhere\"}}'").fails().says(&["Forbidden: pod updates may not change fields"]),
    run("run huge --image=busybox:stable --overrides='{\"spec\":{\"containers\":[{\"name\":\"huge\",\"image\":\"busybox:stable\",\"resources\":{\"requests\":{\"cpu\":\"9000\",\"memory\":\"900Ti\"}}}]}}'"),
    run("run picky --image=busybox:stable --overrides='{\"spec\":{\"nodeSelector\":{\"disk\":\"golden\"}}}'"),
    run("describe pod huge").says(&["FailedScheduling", "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."]).soon(),
    run("describe pod picky").says(&["FailedScheduling", "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."]).soon(),
    run("delete pod huge picky --now").says(&["pod \"huge\" deleted", "pod \"picky\" deleted"]),
    run("delete pod failing --now").says(&["pod \"failing\" deleted"]),
    run("delete pod worker --grace-period=0 --force").says(&["pod \"worker\" force deleted"]),
];
