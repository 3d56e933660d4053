//! Settings in few words: only what differs between them is said, and those that differ in load alone belong together.

use super::Setting;

/// Where the load stands among the parts of a setting.
const LOAD: usize = 4;

/// Which parts of the settings differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Differing([bool; 5]);

impl Differing {
    /// Compares settings.
    pub(super) fn among(settings: &[Setting]) -> Self {
        let mut differs = [false; 5];
        let parts: Vec<[String; 5]> = settings.iter().map(Setting::parts).collect();
        for pair in parts.windows(2) {
            for (place, differs) in differs.iter_mut().enumerate() {
                *differs |= pair[0][place] != pair[1][place];
            }
        }
        Self(differs)
    }

    /// What tells a setting from the others; all of it when there are no others.
    pub(super) fn label(self, setting: &Setting) -> String {
        if self.0.contains(&true) { words(setting, |part| self.0[part]) } else { setting.label() }
    }

    /// What all settings share; empty when that is nothing.
    pub(super) fn shared(self, setting: &Setting) -> String {
        words(setting, |part| !self.0[part])
    }

    /// Whether there are several loads.
    pub(super) fn in_load(self) -> bool {
        self.0[LOAD]
    }
}

/// Settings that differ in load alone.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Facet {
    /// What tells it from other facets; empty when there are none.
    pub(super) label: String,
    /// Positions of its settings, by load.
    pub(super) places: Vec<usize>,
}

/// The facets in the order in which they come.
pub(super) fn facets(settings: &[Setting]) -> Vec<Facet> {
    let differing = Differing::among(settings);
    let mut facets: Vec<Facet> = Vec::new();
    for (place, setting) in settings.iter().enumerate() {
        let label = words(setting, |part| part != LOAD && differing.0[part]);
        match facets.iter_mut().find(|facet| facet.label == label) {
            Some(facet) => facet.places.push(place),
            None => facets.push(Facet { label, places: vec![place] }),
        }
    }
    for facet in &mut facets {
        facet.places.sort_by(|a, b| settings[*a].load.total_cmp(&settings[*b].load));
    }
    facets
}

fn words(setting: &Setting, wanted: impl Fn(usize) -> bool) -> String {
    let parts = setting.parts().into_iter().enumerate().filter(|(part, _)| wanted(*part));
    parts.map(|(_, words)| words).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Net;

    fn setting(routers: usize, load: f64) -> Setting {
        Setting { scenario: "base".to_owned(), load, routers, report_age_s: 1.0, net: Net::Metro }
    }

    #[test]
    fn only_what_differs_is_said() {
        let settings = [setting(1, 0.7), setting(1, 0.5), setting(4, 0.5)];
        let differing = Differing::among(&settings);
        assert_eq!(differing.label(&settings[0]), "1 router, load 0.7");
        assert_eq!(differing.shared(&settings[0]), "base, metro, reports every 1 s");
        let found = facets(&settings);
        assert_eq!(found[0], Facet { label: "1 router".to_owned(), places: vec![1, 0] });
        assert_eq!(found[1], Facet { label: "4 routers".to_owned(), places: vec![2] });
    }

    #[test]
    fn a_setting_alone_is_told_in_full() {
        let alone = [setting(1, 0.7)];
        assert_eq!(Differing::among(&alone).label(&alone[0]), alone[0].label());
        assert_eq!(facets(&alone), [Facet { label: String::new(), places: vec![0] }]);
    }
}
