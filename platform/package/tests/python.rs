//! Python programs, packed and run from their images alone.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use shipway_package::{PackError, ProgramKind, pack};
use support::{Bench, Notes, copy, printed, settle};

#[test]
fn a_program_answers_from_its_image_alone() {
    let bench = Bench::new();
    bench.write("helper.py", "def greeting():\n    return 'hello'\n");
    let program = bench.write(
        "hello.py",
        "import sys, json, ssl, sqlite3, ctypes, hashlib, socket, helper\n\
         print(helper.greeting(), json.dumps(sys.argv[1:]), socket.gethostbyname('127.0.0.1'), len(hashlib.sha256().hexdigest()))\n",
    );
    let mut request = bench.request(&program);
    request.arguments = vec!["a b".into(), "c".into()];
    let packed = pack(&bench.store, &request, &()).unwrap();
    assert_eq!((packed.kind, packed.name.as_str()), (ProgramKind::Python, "hello"));
    assert_eq!(packed.reference.to_string(), "shipway.local/hello:latest");
    assert!(packed.files > 300 && packed.bytes > 5_000_000 && !packed.unchanged);
    if let Some(output) = bench.run(&packed) {
        assert_eq!(printed(&output), "hello [\"a b\", \"c\"] 127.0.0.1 64");
    }
    let files = bench.files(&packed);
    assert!(files.contains(&"/etc/ssl/certs/ca-certificates.crt".to_owned()) || !Path::new("/etc/ssl/certs").exists());
    for other in ["/test/", "/idlelib/", "/tkinter/", "/ensurepip/", "/site-packages/", "/usr/share/zoneinfo/"] {
        assert!(!files.iter().any(|file| file.contains(other)), "{other}");
    }
}

#[test]
fn pythons_of_several_versions_and_makers_pack_and_run() {
    let bench = Bench::new();
    let program = bench.write("v.py", "import sys, ssl, zlib, asyncio\nprint('%d.%d' % sys.version_info[:2])\n");
    let pyenv = std::env::var("HOME").unwrap_or_default() + "/.pyenv/versions";
    let mut pythons: Vec<_> = fs::read_dir(pyenv)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/python3"))
        .filter(|python| python.exists())
        .collect();
    pythons.sort();
    // A few of those that a version manager keeps, and the system's.
    for python in pythons.into_iter().step_by(3).chain(["/usr/bin/python3".into()]).filter(|python| python.exists()) {
        let asked = Command::new(&python).arg(&program).output().unwrap();
        let mut request = bench.request(&program);
        request.interpreter = Some(python.clone());
        let packed = pack(&bench.store, &request, &()).unwrap();
        if let Some(output) = bench.run(&packed) {
            assert_eq!(printed(&output), printed(&asked), "{}", python.display());
        }
    }
}

#[test]
fn the_same_program_gives_the_same_image_from_any_folder() {
    let bench = Bench::new();
    let program = bench.write("hello.py", "print('hello')\n");
    bench.write("data/text", "x");
    let first = bench.pack(&program);
    copy(&bench.source(), &bench.dir.path().join("copy"));
    let mut request = bench.request(bench.dir.path().join("copy/hello.py"));
    assert_eq!(pack(&bench.store, &request, &()).unwrap().digest, first.digest);
    request.cache = bench.dir.path().join("empty cache");
    let again = pack(&bench.store, &request, &()).unwrap();
    assert_eq!(again.digest, first.digest);
    assert!(again.unchanged);
}

#[test]
fn an_edit_changes_the_top_layer_only() {
    let bench = Bench::new();
    let program = bench.write("hello.py", "print('one')\n");
    let before = bench.layers(&bench.pack(&program));
    bench.write("hello.py", "print('two')\n");
    let packed = bench.pack(&program);
    let after = bench.layers(&packed);
    assert_eq!(before[..before.len() - 1], after[..after.len() - 1]);
    assert_ne!(before.last(), after.last());
    assert!(bench.store.size(after.last().unwrap()).unwrap() < 10_000);
    if let Some(output) = bench.run(&packed) {
        assert_eq!(printed(&output), "two");
    }
}

#[test]
fn an_unchanged_program_is_packed_at_once() {
    let bench = Bench::new();
    let program = bench.write("hello.py", "import http.server\n");
    let start = Instant::now();
    let first = bench.pack(&program);
    let cold = start.elapsed();
    settle();
    bench.pack(&program);
    let start = Instant::now();
    let second = bench.pack(&program);
    let warm = start.elapsed();
    println!("{} files, {} bytes: cold {cold:?}, unchanged {warm:?}", first.files, first.bytes);
    assert_eq!((second.digest, second.files, second.bytes), (first.digest, first.files, first.bytes));
    assert!(second.unchanged && warm.as_millis() < 1500 && warm < cold);
}

#[test]
fn installed_modules_come_along_when_imported_and_only_then() {
    let bench = Bench::new();
    let packages = bench.dir.path().join("site");
    let install = |name: &str, content: &str| {
        let path = packages.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    install("six.py", "import sys\n");
    install("lazy/__init__.py", "def load():\n    import unwanted\n");
    install(
        "lazy-1.dist-info/METADATA",
        "Name: lazy\nRequires-Dist: needed (>=1)\nRequires-Dist: unwanted; extra == 'x'\n",
    );
    install("lazy-1.dist-info/RECORD", "lazy/__init__.py,,\n");
    install("needed.py", "value = 7\n");
    install("needed-1.dist-info/METADATA", "Name: needed\n");
    install("needed-1.dist-info/top_level.txt", "needed\n");
    install("unwanted.py", "raise SystemExit('imported')\n");
    let program = bench.write(
        "app.py",
        "from six.moves import nothing\nimport lazy\ntry:\n    import absent\nexcept ImportError:\n    pass\nimport gone\n",
    );
    let python = bench.dir.path().join("python");
    let real = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    fs::write(&python, format!("#!/bin/sh\nPYTHONPATH={} exec {} \"$@\"\n", packages.display(), printed(&real)))
        .unwrap();
    Command::new("chmod").arg("+x").arg(&python).status().unwrap();
    let mut request = bench.request(&program);
    request.interpreter = Some(python);
    let notes = Notes::default();
    let packed = pack(&bench.store, &request, &notes).unwrap();
    let files = bench.files(&packed);
    let has = |name: &str| files.contains(&format!("{}/{name}", packages.display()));
    assert!(has("six.py") && has("lazy/__init__.py") && has("lazy-1.dist-info/METADATA") && has("needed.py"));
    assert!(!has("unwanted.py"));
    let notes = notes.0.into_inner().unwrap();
    assert!(notes.len() == 1 && notes[0].contains("`gone`"), "{notes:?}");
    let image = bench.image(&packed);
    let env = image.config.config().as_ref().unwrap().env().clone().unwrap();
    assert!(env.contains(&format!("PYTHONPATH={}", packages.display())), "{env:?}");
}

#[test]
fn a_virtual_environment_works_and_stays_out_of_the_programs_folder() {
    let bench = Bench::new();
    let venv = bench.source().join("venv");
    let made = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&venv).status();
    if !made.is_ok_and(|status| status.success()) {
        return;
    }
    let python = venv.join("bin/python3");
    let asked = Command::new(&python).args(["-c", "import site; print(site.getsitepackages()[0])"]).output().unwrap();
    fs::write(Path::new(&printed(&asked)).join("inside.py"), "value = 'from the environment'\n").unwrap();
    let program = bench.write("app.py", "import inside, sys\nprint(inside.value, sys.prefix != sys.base_prefix)\n");
    bench.write(".env", "SECRET=1");
    bench.write(".git/config", "x");
    let mut request = bench.request(&program);
    request.interpreter = Some(python);
    let packed = pack(&bench.store, &request, &()).unwrap();
    if let Some(output) = bench.run(&packed) {
        assert_eq!(printed(&output), "from the environment True");
    }
    let files = bench.files(&packed);
    assert!(!files.iter().any(|file| file.starts_with("/app/venv") || file.contains(".git") || file == "/app/.env"));
}

#[test]
fn the_sdk_is_brought_along_where_it_is_not_installed() {
    let bench = Bench::new();
    let program = bench.write(
        "app.py",
        "from metaparticle import containerize\n\
         @containerize('docker.io/me', options={'name': 'x'})\ndef main():\n    print('ran')\n\
         if __name__ == '__main__':\n    main()\n",
    );
    let packed = bench.pack(&program);
    let files = bench.files(&packed);
    assert!(files.iter().any(|file| file.ends_with("metaparticle/__init__.py")), "the SDK is part of the image");
    if let Some(mut command) = bench.command(&packed) {
        let output = command.env("METAPARTICLE_IN_CONTAINER", "true").output().unwrap();
        assert_eq!(printed(&output), "ran");
    }
}

#[test]
fn local_modules_are_taken_from_a_folder_that_is_no_project() {
    let bench = Bench::new();
    let program = bench.write("app.py", "import near.deep\nprint(near.deep.value)\n");
    bench.write("near/__init__.py", "");
    bench.write("near/deep.py", "value = 'found'\n");
    bench.write("unrelated.txt", "x");
    fs::File::create(bench.source().join("huge")).unwrap().set_len(600 << 20).unwrap();
    let notes = Notes::default();
    let packed = pack(&bench.store, &bench.request(&program), &notes).unwrap();
    assert!(notes.0.lock().unwrap()[0].contains("512 MiB"));
    let files = bench.files(&packed);
    assert!(files.contains(&"/app/near/deep.py".to_owned()) && !files.contains(&"/app/unrelated.txt".to_owned()));
    if let Some(output) = bench.run(&packed) {
        assert_eq!(printed(&output), "found");
    }
}

#[test]
fn nothing_is_written_beside_the_program() {
    let bench = Bench::new();
    let program = bench.write("app.py", "import near\n");
    bench.write("near.py", "");
    symlink("/etc/passwd", bench.source().join("out")).unwrap();
    bench.pack(&program);
    let mut names: Vec<_> = fs::read_dir(bench.source()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["app.py", "near.py", "out"]);
}

#[test]
fn mistakes_are_told_in_one_line() {
    let bench = Bench::new();
    let program = bench.write("bad.py", "print('x')\ndef f(:\n");
    let error = bench.fail(&program);
    assert!(matches!(error, PackError::Syntax { line: 2, .. }), "{error}");
    let program = bench.write("good.py", "print('x')\n");
    let mut request = bench.request(&program);
    for (interpreter, expected) in [("/no/such/python", "not on this machine"), ("/bin/false", "does not work")] {
        request.interpreter = Some(interpreter.into());
        let error = pack(&bench.store, &request, &()).unwrap_err().to_string();
        assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
    }
    assert!(bench.store.list().unwrap().is_empty());
}
