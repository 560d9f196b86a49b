//! Listings of a cluster as demand.

use super::kubernetes::{Observed, observe};

fn node(name: &str, more: &str, (capacity, allocatable): (&str, &str)) -> String {
    format!(
        r#"{{"kind":"Node","metadata":{{"name":"{name}","labels":{{"kind":"{name}","slots":"8"}}}},"spec":{{{more}}},
            "status":{{"capacity":{{"cpu":"64","nvidia.com/gpu":"{capacity}"}},"allocatable":{{"nvidia.com/gpu":"{allocatable}"}},
            "conditions":[{{"type":"MemoryPressure","status":"False"}},{{"type":"Ready","status":"True"}}]}}}}"#
    )
}

fn pod(name: &str, phase: &str, spec: &str) -> String {
    format!(
        r#"{{"kind":"Pod","metadata":{{"name":"{name}","namespace":"team"}},"spec":{{{spec}}},"status":{{"phase":"{phase}"}}}}"#
    )
}

fn asks(gpus: &str) -> String {
    format!(r#""containers":[{{"resources":{{"requests":{{"cpu":"500m","nvidia.com/gpu":"{gpus}"}}}}}}]"#)
}

fn on(node: &str, gpus: &str) -> String {
    format!(r#""nodeName":"{node}",{}"#, asks(gpus))
}

fn list(objects: &[String]) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"List","metadata":{{"resourceVersion":""}},"items":[{}]}}"#, objects.join(","))
}

fn seen(objects: &[String]) -> Observed {
    observe(&list(objects), None).unwrap()
}

fn figures(objects: &[String]) -> (u32, u32, u32) {
    let Observed { capacity, in_use, queued, .. } = seen(objects);
    (capacity, in_use, queued)
}

#[test]
fn pods_have_what_they_request_from_binding_to_their_end() {
    let objects = [
        node("a", "", ("8", "8")),
        node("b", "", ("8", "8")),
        pod("runs", "Running", &on("a", "3")),
        pod("pulls", "Pending", &on("b", "2")),
        pod("done", "Succeeded", &on("a", "4")),
        pod("broke", "Failed", &on("a", "4")),
        pod("waits", "Pending", &asks("5")),
        pod("elsewhere", "Running", &on("not-listed", "8")),
        pod("gated", "Pending", &format!(r#""schedulingGates":[{{"name":"quota"}}],{}"#, asks("8"))),
        pod("plain", "Running", r#""nodeName":"a","containers":[{"resources":{}},{}]"#),
    ];
    assert_eq!(figures(&objects), (16, 5, 5));
    assert!(seen(&objects).remarks.is_empty());
}

#[test]
fn what_nobody_can_use_is_not_there_to_be_sold() {
    let away = node("c", "", ("8", "8")).replace(r#""Ready","status":"True""#, r#""Ready","status":"Unknown""#);
    let objects = [
        node("a", "", ("8", "6")),
        node("b", r#""unschedulable":true"#, ("8", "8")),
        away,
        pod("runs", "Running", &on("a", "3")),
        pod("drains", "Running", &on("b", "2")),
    ];
    assert_eq!(figures(&objects), (24, 5 + 8 + 8, 0));
    // Of a: 2 that are not healthy. Of b: 6 that are free, of c: 8.
    assert!(seen(&objects).remarks[0].ends_with(": 16"), "{:?}", seen(&objects).remarks);
}

#[test]
fn init_containers_and_sidecars_count_as_the_scheduler_counts_them() {
    let container = |gpus: u32, more: &str| format!(r#"{{{more}"resources":{{"limits":{{"nvidia.com/gpu":"{gpus}"}}}}}}"#);
    let spec = |init: &[String], gpus: u32| {
        format!(r#""nodeName":"a","initContainers":[{}],"containers":[{}]"#, init.join(","), container(gpus, ""))
    };
    let used = |spec: &str| figures(&[node("a", "", ("64", "64")), pod("p", "Running", spec)]).1;
    let sidecar = container(2, r#""restartPolicy":"Always","#);
    assert_eq!(used(&spec(&[container(5, "")], 3)), 5);
    assert_eq!(used(&spec(&[container(2, "")], 3)), 3);
    assert_eq!(used(&spec(&[sidecar.clone(), container(5, "")], 3)), 7);
    assert_eq!(used(&spec(&[container(5, ""), sidecar], 3)), 5);
}

#[test]
fn a_pod_waits_for_the_nodes_that_it_may_be_placed_on() {
    let queued = |spec: &str| figures(&[node("a", "", ("8", "8")), pod("p", "Pending", &format!("{spec}{}", asks("4")))]).2;
    let requires = |expression: &str| {
        format!(
            r#""affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{{"matchExpressions":[{expression}]}}]}}}}}},"#
        )
    };
    assert_eq!(queued(r#""nodeSelector":{"kind":"a"},"#), 4);
    assert_eq!(queued(r#""nodeSelector":{"kind":"b"},"#), 0);
    for (expression, waits) in [
        (r#"{"key":"kind","operator":"In","values":["a","b"]}"#, true),
        (r#"{"key":"kind","operator":"NotIn","values":["a"]}"#, false),
        (r#"{"key":"other","operator":"Exists"}"#, false),
        (r#"{"key":"other","operator":"DoesNotExist"}"#, true),
        (r#"{"key":"slots","operator":"Gt","values":["4"]}"#, true),
        (r#"{"key":"slots","operator":"Lt","values":["4"]}"#, false),
        ("", false),
    ] {
        assert_eq!(queued(&requires(expression)) > 0, waits, "{expression}");
    }
}

#[test]
fn pods_of_sublet_and_claims_of_devices_are_said() {
    let ours = pod("sold", "Running", &on("a", "4"))
        .replace(r#""namespace":"team""#, r#""namespace":"tenant","labels":{"app.kubernetes.io/managed-by":"sublet"}"#);
    let claims = pod("claims", "Running", r#""nodeName":"a","resourceClaims":[{"name":"gpu"}],"containers":[{}]"#);
    let found = seen(&[node("a", "", ("8", "8")), ours, claims]);
    assert_eq!((found.in_use, found.remarks.len()), (0, 2), "{:?}", found.remarks);
}

#[test]
fn lists_of_the_api_itself_are_read_one_behind_the_other() {
    let nodes = list(&[node("a", "", ("8", "8")).replacen(r#""kind":"Node","#, "", 1)]).replacen("List", "NodeList", 1);
    let pods = list(&[pod("p", "Running", &on("a", "2")).replacen(r#""kind":"Pod","#, "", 1)]).replacen("List", "PodList", 1);
    let found = observe(&format!("{nodes}\n{pods}"), None).unwrap();
    assert_eq!((found.capacity, found.in_use), (8, 2));
}

#[test]
fn what_cannot_be_read_is_refused_with_what_would_work() {
    let amd = node("b", "", ("8", "8")).replace("nvidia.com", "amd.com");
    let refused = [
        ("NAME READY STATUS".to_owned(), None, "line 1: this is no listing"),
        (list(&[pod("p", "Running", &on("a", "2"))]), None, "no nodes in the listing"),
        (list(&[node("a", "", ("0", "0"))]), None, "no node of the listing has a device"),
        (list(&[node("a", "", ("8", "8"))]), Some("amd.com/gpu"), "no node of the listing has amd.com/gpu"),
        (list(&[node("a", "", ("8", "8")), amd]), None, "several sorts of devices: nvidia.com/gpu, amd.com/gpu"),
        (list(&[node("a", "", ("8", "8")), pod("p", "Running", &on("a", "-2"))]), None, "Pod team/p: nvidia.com/gpu is '-2'"),
        (list(&[node("a", "", ("8k", "8"))]), None, "Node /a: nvidia.com/gpu is '8k'"),
        (node("a", "", ("8", "8")), None, "there is a Node and no listing"),
    ];
    for (text, resource, said) in refused {
        let error = observe(&text, resource).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert!(!error.alternatives().is_empty(), "{error}");
    }
}
