//! Binaries and scripts, packed and run from their images alone, and the init program that starts them all.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use shipway_package::{PackError, ProgramKind, pack};
use support::{Bench, printed};

#[test]
fn a_binary_runs_with_its_libraries_alone() {
    let bench = Bench::new();
    let mut request = bench.request("/bin/ls");
    request.arguments = vec!["/app".into()];
    let packed = pack(&bench.store, &request, &()).unwrap();
    assert_eq!((packed.kind, packed.name.as_str()), (ProgramKind::Elf, "ls"));
    if let Some(output) = bench.run(&packed) {
        assert_eq!(printed(&output), "ls");
    }
    assert!(!bench.files(&packed).iter().any(|file| file.contains("python")));
}

#[test]
fn a_static_binary_comes_alone() {
    let bench = Bench::new();
    let packed = bench.pack("/bin/true");
    let init = bench.root(&packed).join(".shipway/init");
    let size = fs::metadata(&init).unwrap().len();
    assert!(size < 16_384, "the init program is {size} bytes");
    let alone = bench.pack(init);
    let names = bench.files(&alone);
    assert!(names.iter().all(|name| !name.contains("/lib")), "{names:?}");
}

#[test]
fn libraries_beside_the_program_move_with_it() {
    let bench = Bench::new();
    bench.write("lib.c", "int answer(void) { return 42; }\n");
    bench.write(
        "main.c",
        "#include <stdio.h>\nint answer(void);\nint main(void) { printf(\"%d\\n\", answer()); return 0; }\n",
    );
    let compile = |arguments: &[&str]| Command::new("cc").current_dir(bench.source()).args(arguments).status();
    let made = compile(&["-shared", "-fPIC", "-o", "libanswer.so", "lib.c"]).is_ok_and(|status| status.success())
        && compile(&["-o", "main", "main.c", "-L.", "-lanswer", "-Wl,-rpath,$ORIGIN"]).is_ok_and(|s| s.success());
    if !made {
        return;
    }
    let packed = bench.pack(bench.source().join("main"));
    assert!(bench.files(&packed).contains(&"/app/libanswer.so".to_owned()));
    if let Some(output) = bench.run(&packed) {
        assert_eq!(printed(&output), "42");
    }
    fs::remove_file(bench.source().join("libanswer.so")).unwrap();
    let error = bench.fail(bench.source().join("main"));
    assert!(matches!(&error, PackError::LibraryMissing { name, .. } if name == "libanswer.so"), "{error}");
}

#[test]
fn a_script_runs_with_the_commands_it_names() {
    let bench = Bench::new();
    bench.write("data", "b\na\n");
    let program = bench.write(
        "job.sh",
        "#!/usr/bin/env bash\nset -eu\ncd \"$(dirname \"$0\")\"\nsort data | tr a-z A-Z | while read -r line; do echo \"$line $1\"; done\n",
    );
    let mut request = bench.request(&program);
    request.arguments = vec!["x".into()];
    let packed = pack(&bench.store, &request, &()).unwrap();
    assert_eq!(packed.kind, ProgramKind::Script);
    if let Some(output) = bench.run(&packed) {
        assert_eq!(printed(&output), "A x\nB x");
    }
    let plain = bench.write("plain.sh", "echo plain\n");
    if let Some(output) = bench.run(&bench.pack(plain)) {
        assert_eq!(printed(&output), "plain");
    }
    let other = bench.write("other", "#!/no/such/interpreter\n");
    assert!(matches!(bench.fail(other), PackError::InterpreterMissing { .. }));
}

#[test]
fn what_cannot_be_packed_leaves_nothing_behind() {
    let bench = Bench::new();
    assert!(matches!(bench.fail("/no/such/program"), PackError::Missing(_)));
    assert!(matches!(bench.fail(bench.source()), PackError::Directory(_)));
    let mut bytes = fs::read("/bin/true").unwrap();
    bytes[18..20].copy_from_slice(&[0xf3, 0]);
    let foreign = bench.source().join("foreign");
    fs::write(&foreign, bytes).unwrap();
    Command::new("chmod").arg("+x").arg(&foreign).status().unwrap();
    let error = bench.fail(&foreign);
    assert!(matches!(&error, PackError::ForeignArchitecture { found, .. } if found == "RISC-V"), "{error}");
    assert!(bench.store.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(bench.store.path().join("blobs/sha256")).unwrap().count(), 0);
}

/// The init program, unpacked from an image.
fn init(bench: &Bench) -> Command {
    let packed = bench.pack("/bin/true");
    Command::new(bench.root(&packed).join(".shipway/init"))
}

#[test]
fn init_ends_as_the_program_ends() {
    let bench = Bench::new();
    let code = |arguments: &[&str]| init(&bench).args(arguments).stderr(Stdio::null()).status().unwrap().code();
    assert_eq!(code(&["--", "sh", "-c", "exit 7"]), Some(7));
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]), Some(137));
    assert_eq!(code(&["--", "/bin/sh", "-c", "(sleep 0.1 &) ; exit 0"]), Some(0));
    assert_eq!(code(&["no-such-program"]), Some(127));
    assert_eq!(code(&["/tmp"]), Some(126));
    assert_eq!(code(&[]), Some(127));
}

#[test]
fn init_forwards_signals_and_says_what_it_cannot_start() {
    let bench = Bench::new();
    let script = "trap 'echo asked to end; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = init(&bench).args(["--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let mut output = child.stdout.take().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!(std::io::read_to_string(&mut output).unwrap(), "ready\nasked to end\n");
    let output = init(&bench).arg("/no/such").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such"));
    assert!(Path::new("/proc/self").exists());
}
