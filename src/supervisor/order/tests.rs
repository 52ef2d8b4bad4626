use super::*;
use proptest::prelude::*;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn names(texts: &str) -> Vec<Name> {
    texts.split_whitespace().map(name).collect()
}

/// `(name, after, requires)`, the lists separated by spaces.
fn order(entries: &[(&str, &str, &str)]) -> Order {
    let mut order = Order::default();
    for (who, after, requires) in entries {
        order.insert(&name(who), &names(after), &names(requires));
    }
    order
}

fn set(texts: &str) -> BTreeSet<Name> {
    names(texts).into_iter().collect()
}

/// Carries a plan out one by one, in waves.
fn waves(mut plan: Plan) -> Vec<BTreeSet<Name>> {
    let mut waves = Vec::new();
    loop {
        let wave = plan.free();
        if wave.is_empty() {
            return waves;
        }
        assert!(plan.free().is_empty(), "nobody is given out twice");
        wave.iter().for_each(|name| plan.done(name));
        waves.push(wave.into_iter().collect());
    }
}

#[test]
fn what_does_not_depend_on_each_other_is_one_wave() {
    let order = order(&[("db", "", ""), ("log", "", ""), ("api", "log", "db"), ("web", "api", ""), ("web2", "", "api db")]);
    assert_eq!(waves(Plan::start(&order, &order.names().cloned().collect())), [set("db log"), set("api"), set("web web2")]);
    assert_eq!(waves(Plan::stop(&order, &order.names().cloned().collect())), [set("web web2"), set("api"), set("db log")]);
    assert_eq!(waves(Plan::start(&order, &set("web db"))), [set("db"), set("web")], "by way of who is not started");
    assert_eq!(waves(Plan::stop(&order, &set("web db"))), [set("web"), set("db")]);
}

#[test]
fn a_base_name_stands_for_all_instances_unless_somebody_bears_it() {
    let mut order =
        order(&[("web@1", "", ""), ("web@2", "", ""), ("web@x", "", ""), ("web@02", "", ""), ("b", "", "web"), ("c", "web@2", "")]);
    assert_eq!(order.stands_for("web"), [&name("web@1"), &name("web@2")]);
    assert_eq!(order.required_by(&name("web@1")), set("b"));
    assert_eq!(order.required_by(&name("web@x")), set(""));
    assert_eq!(order.pulled_in(&[name("b")], |_| true), set("web@1 web@2"));
    assert_eq!(waves(Plan::start(&order, &set("b c web@1 web@2"))), [set("web@1 web@2"), set("b c")]);
    assert_eq!(waves(Plan::stop(&order, &set("b web@1 web@2"))), [set("b"), set("web@1 web@2")]);
    order.insert(&name("web"), &[], &[]);
    assert_eq!(order.stands_for("web"), [&name("web")]);
    assert_eq!((order.required_by(&name("web@1")), order.required_by(&name("web"))), (set(""), set("b")));
}

#[test]
fn who_goes_takes_a_requirement_away_only_where_nobody_else_bears_its_name() {
    let entries = [("web@1", "", ""), ("web@2", "", ""), ("all", "", "web"), ("one", "", "web@2"), ("late", "web@1", ""), ("a", "", "")];
    let mut order = order(&entries);
    assert_eq!(order.family(&name("web")).collect::<Vec<_>>(), [&name("web@1"), &name("web@2")]);
    assert_eq!(order.bereft(&set("web@1 a")), None);
    assert_eq!(order.bereft(&set("web@2")), Some((name("web@2"), set("one"))));
    assert_eq!(order.bereft(&set("one web@2")), None, "who goes, too, needs nothing");
    assert_eq!(order.bereft(&set("one web@1 web@2")), Some((name("web@1"), set("all"))));
    // Once it is gone, its end is nobody's concern.
    order.remove(&name("web@1"));
    assert_eq!((order.contains(&name("web@1")), order.dependents([&name("web@1")])), (false, set("")));
    assert_eq!(order.dependents([&name("web@2")]), set("all one"));
    order.insert(&name("web"), &[], &[]);
    assert_eq!(order.family(&name("web")).collect::<Vec<_>>(), [&name("web"), &name("web@2")]);
}

#[test]
fn a_cycle_is_told_by_its_path() {
    let path = |entries: &[(&str, &str, &str)]| order(entries).cycle_among([&name("a")]).map(|cycle| cycle.to_string());
    assert_eq!(path(&[("a", "", "b"), ("b", "c", ""), ("c", "", "a")]).as_deref(), Some("a requires b, b is after c, c requires a"));
    assert_eq!(path(&[("a", "b", ""), ("b", "", "")]), None);
    assert_eq!(path(&[("a", "", ""), ("b", "c", ""), ("c", "b", "")]), None, "none that it leads to");
    let by_instance = path(&[("a", "", "web"), ("web@1", "", ""), ("web@2", "a", "")]).unwrap();
    assert_eq!(by_instance, "a requires web, which web@2 is one of, web@2 is after a");
    let itself = order(&[("web@1", "", "web"), ("web@2", "", "web")]).cycles(10);
    assert!(!itself.is_empty() && itself.iter().all(|cycle| cycle.0.iter().all(|step| step.said == name("web"))), "{itself:?}");
}

#[test]
fn a_long_cycle_is_shown_by_its_ends() {
    let mut order = Order::default();
    for i in 0..100 {
        order.insert(&name(&format!("p{i}")), &[name(&format!("p{}", (i + 1) % 100))], &[]);
    }
    let text = order.cycles(10)[0].to_string();
    assert!(text.starts_with("p0 is after p1, ") && text.contains(", … 84 more …, ") && text.ends_with(", p99 is after p0"), "{text}");
}

#[test]
fn unknown_names_are_found_until_they_are_known() {
    let mut order = order(&[("a", "x", "y b"), ("b", "", "")]);
    assert_eq!(order.unknown(&name("a")), [(Link::After, name("x")), (Link::Requires, name("y"))]);
    order.insert(&name("x"), &[], &[]);
    order.insert(&name("y@7"), &[], &[]);
    assert!(order.unknown(&name("a")).is_empty());
    order.remove(&name("b"));
    assert_eq!(order.unknown(&name("a")), [(Link::Requires, name("b"))]);
}

#[test]
fn an_end_takes_along_who_requires_it_and_a_start_what_it_requires() {
    let order = order(&[("a", "", ""), ("b", "", "a"), ("c", "", "b"), ("d", "a", ""), ("e", "", "x")]);
    assert_eq!(order.dependents(&[name("a")]), set("b c"));
    assert_eq!(order.dependents(&[name("a"), name("b")]), set("c"));
    assert_eq!(order.pulled_in(&[name("c")], |_| true), set("a b"));
    assert_eq!(order.pulled_in(&[name("c")], |needed| needed.as_str() != "b"), set(""), "what runs has what it needs");
    assert_eq!(order.pulled_in(&[name("e")], |_| true), set(""));
}

#[test]
fn a_thousand_that_require_a_thousand_are_no_million() {
    let mut order = Order::default();
    for i in 1..=1000 {
        order.insert(&name(&format!("server@{i}")), &[], &[]);
        order.insert(&name(&format!("client@{i}")), &[], &[name("server")]);
    }
    let all: BTreeSet<Name> = order.names().cloned().collect();
    let plan = Plan::stop(&order, &all);
    let arrows: usize = plan.awaited_by.iter().map(Vec::len).sum();
    assert_eq!(arrows, 2000);
    let waves = waves(plan);
    assert_eq!(waves.iter().map(BTreeSet::len).collect::<Vec<_>>(), [1000, 1000]);
    assert!(order.cycles(1).is_empty());
    assert_eq!(order.dependents(&[name("server@5")]).len(), 1000);
}

/// A random graph: for each of up to 30 vertices whom it names, and how. Some are instances, and some names stand for instances.
fn graph(acyclic: bool) -> impl Strategy<Value = Order> {
    let said = proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..4);
    proptest::collection::vec(said, 1..30).prop_map(move |vertices| {
        let count = vertices.len();
        // The last three are the instances of one name, and nobody of them says anything in the acyclic case.
        let called = |i: usize| name(&if i + 3 >= count { format!("i@{}", i + 1) } else { format!("n{i}") });
        let mut order = Order::default();
        for (i, said) in vertices.iter().enumerate() {
            let mut lists = [Vec::new(), Vec::new()];
            for (index, requires) in said {
                let to = if acyclic { i + 1 + index.index(count) } else { index.index(count + 1) };
                if to < count && to != i {
                    lists[usize::from(*requires)].push(called(to));
                } else if to == count && (!acyclic || i + 3 < count) {
                    lists[usize::from(*requires)].push(name("i"));
                }
            }
            order.insert(&called(i), &lists[0], &lists[1]);
        }
        order
    })
}

/// Every pair of a dependent and what it depends on.
fn pairs(order: &Order) -> Vec<(Name, Name)> {
    let said = order.says.iter().flat_map(|(name, says)| says.keys().map(move |said| (name, said)));
    said.flat_map(|(name, said)| order.stands_for(said.as_str()).into_iter().map(|to| (name.clone(), to.clone()))).collect()
}

/// Every pair of one and what it depends on, directly or by way of others.
fn paths(order: &Order) -> BTreeSet<(Name, Name)> {
    let mut paths: BTreeSet<(Name, Name)> = pairs(order).into_iter().collect();
    for by in order.names() {
        let to: Vec<Name> = paths.iter().filter(|(_, on)| on == by).map(|(who, _)| who.clone()).collect();
        let from: Vec<Name> = paths.iter().filter(|(who, _)| who == by).map(|(_, on)| on.clone()).collect();
        paths.extend(to.iter().flat_map(|who| from.iter().map(|on| (who.clone(), on.clone()))));
    }
    paths
}

proptest! {
    #[test]
    fn every_edge_is_respected_and_everybody_is_there_once(order in graph(true), picks in proptest::collection::vec(any::<bool>(), 30)) {
        let some: BTreeSet<Name> = order.names().zip(picks).filter(|(_, pick)| *pick).map(|(name, _)| name.clone()).collect();
        prop_assert!(order.cycles(1).is_empty());
        for (plan, reverse) in [(Plan::start(&order, &some), false), (Plan::stop(&order, &some), true)] {
            let waves = waves(plan);
            prop_assert_eq!(waves.iter().map(BTreeSet::len).sum::<usize>(), some.len());
            let place: HashMap<&Name, usize> = waves.iter().enumerate().flat_map(|(at, wave)| wave.iter().map(move |name| (name, at))).collect();
            prop_assert_eq!(place.len(), some.len());
            for (who, on) in paths(&order) {
                if let (Some(who), Some(on)) = (place.get(&who), place.get(&on)) {
                    let (first, then) = if reverse { (who, on) } else { (on, who) };
                    prop_assert!(first < then);
                }
            }
        }
    }

    #[test]
    fn a_cycle_is_found_when_there_is_one_and_is_real(order in graph(false)) {
        let pairs = pairs(&order);
        let cycles = order.cycles(5);
        // Told by another way: taking away whoever depends on nobody that is left, until nobody can be taken.
        let mut left: BTreeSet<&Name> = order.names().collect();
        loop {
            let waiting: BTreeSet<&Name> = pairs.iter().filter(|(_, on)| left.contains(on)).map(|(who, _)| who).collect();
            let next: BTreeSet<&Name> = left.intersection(&waiting).copied().collect();
            if next.len() == left.len() {
                break;
            }
            left = next;
        }
        prop_assert_eq!(cycles.is_empty(), left.is_empty());
        for Cycle(steps) in cycles {
            prop_assert!(!steps.is_empty());
            for (step, next) in steps.iter().zip(steps.iter().cycle().skip(1)) {
                prop_assert_eq!(&step.to, &next.from);
                prop_assert_eq!(order.says[&step.from].get(&step.said), Some(&step.link));
                prop_assert!(order.stands_for(step.said.as_str()).contains(&&step.to));
            }
        }
        // Nothing is left undone, come what may.
        let all: BTreeSet<Name> = order.names().cloned().collect();
        prop_assert_eq!(waves(Plan::stop(&order, &all)).iter().map(BTreeSet::len).sum::<usize>(), all.len());
    }

    #[test]
    fn closures_are_closed(order in graph(true), index in any::<prop::sample::Index>()) {
        let all: Vec<&Name> = order.names().collect();
        let one = all[index.index(all.len())].clone();
        let pulled = order.pulled_in([&one], |_| true);
        let dependents = order.dependents([&one]);
        for (who, said) in order.says.iter().flat_map(|(who, says)| says.iter().filter(|(_, link)| **link == Link::Requires).map(move |(said, _)| (who, said))) {
            for on in order.stands_for(said.as_str()) {
                prop_assert!(!(*who == one || pulled.contains(who)) || pulled.contains(on));
                prop_assert!(!(*on == one || dependents.contains(on)) || dependents.contains(who));
            }
        }
        prop_assert!(pulled.iter().all(|required| order.dependents([required]).contains(&one)));
        prop_assert!(!pulled.contains(&one) && !dependents.contains(&one));
    }
}
