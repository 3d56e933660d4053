//! Who plays in a closed loop: a model, the one that it would replace, and what a router does without one.

use std::sync::Arc;

use shardwise_evaluation::{CANDIDATE, CHAMPION, Contender, STANDARD};
use shardwise_models::ModelBundle;
use shardwise_policies::{Runtime, Sed, by_name};

use super::placers::placer;

/// A model, the champion if there is one, the model's service table alone, and policies that need neither.
pub(crate) fn contenders(
    model: &Arc<ModelBundle>,
    champion: Option<&Arc<ModelBundle>>,
    rivals: &[&'static str],
    runtime: Runtime,
) -> Vec<Contender> {
    let with = |name, bundle: &Arc<ModelBundle>| {
        let bundle = Arc::clone(bundle);
        Contender::new(name, move || Box::new(placer(Some(&bundle), runtime)))
    };
    let table = model.service_table();
    let mut contenders = vec![with(CANDIDATE, model)];
    contenders.extend(champion.map(|champion| with(CHAMPION, champion)));
    contenders.push(Contender::new(STANDARD, move || Box::new(Sed::offline(Arc::clone(&table), runtime))));
    contenders.extend(known(rivals, runtime));
    contenders
}

/// A router without a model, and policies that need none.
pub(crate) fn without_model(rivals: &[&'static str], runtime: Runtime) -> Vec<Contender> {
    let mut contenders = vec![Contender::new(CANDIDATE, move || Box::new(placer(None, runtime)))];
    contenders.extend(known(rivals, runtime));
    contenders
}

fn known(names: &[&'static str], runtime: Runtime) -> impl Iterator<Item = Contender> {
    let make = move |name| Contender::new(name, move || by_name(name, runtime).expect("a known policy"));
    names.iter().copied().map(make)
}
