//! A binary and its libraries. A static one comes alone.

use crate::PackError;
use crate::cache::Cache;
use crate::image::Plan;
use crate::libraries::{Linker, Place};
use crate::object;
use crate::program::{APP, Program};
use crate::system;
use crate::tree::Tree;

pub(crate) fn plan(program: &Program, cache: &Cache) -> Result<Plan, PackError> {
    // Read once by itself, so that a foreign or damaged binary is said to be one.
    object::read(&program.path)?;
    let purpose = program.path.to_string_lossy();
    let mut linker = Linker::open(cache, &purpose);
    let place = Place { host: program.path.clone(), image: program.target.clone() };
    let mut base = Tree::default();
    system::add_base(&mut base);
    linker.closure(&place, None)?.complete()?.add_to(&mut base)?;
    linker.close(cache, &purpose)?;
    let mut env = system::environment(system::PATH);
    env.extend(system::add_authorities(&mut base)?);
    let mut app = Tree::default();
    app.directory(APP, 0o755);
    app.copy(&program.target, &program.path)?;
    Ok(Plan {
        layers: vec![("system", base), ("program", app)],
        env,
        entrypoint: system::entrypoint([program.target.to_string_lossy().into_owned()]),
        workdir: APP.to_owned(),
    })
}
