//! What the owner's own pods use and wait for, from a listing of a cluster: `kubectl get pods,nodes -A -o json`.
//!
//! A pod has what it requests from the moment that it is bound to a node until it has ended; what it requests is the sum
//! over its containers and sidecars, or the most that one of its init containers needs if that is more (Kubernetes'
//! documentation, "Init Containers: resource sharing within containers" and "Pod overhead"). What nobody can use, because
//! its node is cordoned, not ready, or says that a device is not healthy, is in use as well: it cannot be sold.
//!
//! Nodes that are not in the listing do not count, nor do pods that are bound to them, so a cluster is cut into pools with
//! a selector of nodes. A pod waits for these nodes if its selector and what its affinity requires allow one of them.
//!
//! Deliberately absent: what happened before the listing was made (pods are deleted, and nothing says when);
//! taints, which say who may not be placed and not who has been; claims of devices through dynamic
//! resource allocation, which are counted and said.

use std::collections::BTreeMap;

use serde::Deserialize;
use sublet_core::error::{Error, ErrorCode, Result};

/// Extended resources of accelerators that are whole devices, by the names of their vendors' plugins.
const RESOURCES: [&str; 7] = [
    "nvidia.com/gpu",
    "amd.com/gpu",
    "gpu.intel.com/xe",
    "gpu.intel.com/i915",
    "habana.ai/gaudi",
    "google.com/tpu",
    "aws.amazon.com/neuron",
];
/// Parts of one device that a scheduler counts like devices.
const PARTS: &str = "nvidia.com/mig-";
/// Pods with this label are those of Sublet itself.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "sublet");
/// Most of a resource that a pod or node may name.
const UNITS_MAX: u64 = 10_000_000;
/// Longest name that an error repeats, in characters: that of an object of Kubernetes.
const SHOWN_MAX: usize = 253;
const COMMAND: &str = "print it with: kubectl get pods,nodes --all-namespaces -o json";

/// What a listing says of a pool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observed {
    /// The resource that was counted.
    pub resource: String,
    /// Devices of the nodes that are listed.
    pub capacity: u32,
    /// Of these, what pods have and what nobody can use.
    pub in_use: u32,
    pub queued: u32,
    /// What the owner should know about how it was read.
    pub remarks: Vec<String>,
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    kind: String,
    items: Option<Vec<Object>>,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

type Labels = BTreeMap<String, String>;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    namespace: String,
    labels: Labels,
    deletion_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    unschedulable: bool,
    node_name: String,
    node_selector: Labels,
    affinity: Affinity,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    overhead: Labels,
    scheduling_gates: Vec<serde::de::IgnoredAny>,
    resource_claims: Vec<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    restart_policy: String,
    resources: Resources,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resources {
    requests: Labels,
    limits: Labels,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Affinity {
    node_affinity: NodeAffinity,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Option<Terms>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terms {
    node_selector_terms: Vec<Term>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Term {
    match_expressions: Vec<Expression>,
    match_fields: Vec<Expression>,
}

#[derive(Deserialize)]
struct Expression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
    capacity: Labels,
    allocatable: Labels,
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// What is so now on the nodes that the listing has.
///
/// # Errors
/// [`ErrorCode::InvalidRequest`] with the object that is wrong; [`ErrorCode::Usage`] if it has to be said which resource.
pub fn observe(text: &str, resource: Option<&str>) -> Result<Observed> {
    let objects = objects(text)?;
    let (nodes, pods): (Vec<&Object>, Vec<&Object>) = objects.iter().partition(|object| object.kind == "Node");
    let pods: Vec<&Object> = pods.into_iter().filter(|object| object.kind == "Pod").collect();
    let resource = resource.map_or_else(|| found_resource(&nodes), |given| Ok(given.to_owned()))?;
    let mut places: BTreeMap<&str, Place> = BTreeMap::new();
    for node in &nodes {
        places.insert(node.metadata.name.as_str(), Place::of(node, &resource)?);
    }
    if places.values().all(|place| place.devices == 0) {
        return Err(Error::new(ErrorCode::InvalidRequest, format!("no node of the listing has {resource}"))
            .alternative("name what its nodes have with --resource")
            .alternative(COMMAND));
    }
    let (mut queued, mut ours, mut claims) = (0_u64, 0_usize, 0_usize);
    for pod in pods {
        let spec = &pod.spec;
        if ["Succeeded", "Failed"].contains(&pod.status.phase.as_str()) {
            continue;
        }
        claims += usize::from(!spec.resource_claims.is_empty());
        if pod.metadata.labels.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1) {
            ours += 1;
            continue;
        }
        let units = requested(pod, &resource)?;
        if !spec.node_name.is_empty() {
            if let Some(place) = places.get_mut(spec.node_name.as_str()) {
                place.requested += units;
            }
            continue;
        }
        let waits = spec.scheduling_gates.is_empty() && pod.metadata.deletion_timestamp.is_none();
        if waits && nodes.iter().any(|node| allows(spec, node)) {
            queued += units;
        }
    }
    let total = |of: fn(&Place) -> u64| places.values().map(of).sum::<u64>();
    let idle_but_away = total(|place| place.used() - place.requested.min(place.devices));
    let mut remarks = Vec::new();
    let mut note = |count: u64, what: &str| {
        if count > 0 {
            remarks.push(format!("{what}: {count}"));
        }
    };
    note(idle_but_away, "units that nobody can use, of nodes that are cordoned or not ready, and devices that are not healthy");
    note(count(ours), "pods of Sublet itself that do not count");
    note(count(claims), "pods with claims of devices, of which a listing does not say how many they have");
    note(total(|place| place.parts), "parts of devices that are not counted; name one with --resource");
    Ok(Observed {
        resource,
        capacity: units(total(|place| place.devices)),
        in_use: units(total(Place::used)),
        queued: units(queued),
        remarks,
    })
}

/// What an error repeats of a text.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN_MAX).collect()
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn units(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The objects of one listing, or of several one behind the other.
fn objects(text: &str) -> Result<Vec<Object>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let wrong = |message: String| Error::new(ErrorCode::InvalidRequest, message).alternative(COMMAND);
    let mut objects = Vec::new();
    for listing in serde_json::Deserializer::from_str(text).into_iter::<Listing>() {
        let Listing { kind, items } =
            listing.map_err(|error| wrong(format!("line {}: this is no listing of objects in JSON: {error}", error.line())))?;
        let Some(items) = items else { return Err(wrong(format!("there is a {} and no listing", shown(&kind)))) };
        // The API's own lists name the kind once.
        let each = kind.strip_suffix("List").unwrap_or_default();
        objects.extend(items.into_iter().map(|object| match object.kind.as_str() {
            "" => Object { kind: each.to_owned(), ..object },
            _ => object,
        }));
    }
    if !objects.iter().any(|object| object.kind == "Node") {
        return Err(wrong("there are no nodes in the listing, so nothing says what there is".to_owned()));
    }
    Ok(objects)
}

/// The accelerators that the nodes have, if they are of one sort.
fn found_resource(nodes: &[&Object]) -> Result<String> {
    let has = |resource: &&str| nodes.iter().any(|node| node.status.capacity.get(*resource).is_some_and(|units| units != "0"));
    let found: Vec<&str> = RESOURCES.into_iter().filter(has).collect();
    match found.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(Error::new(ErrorCode::Usage, "no node of the listing has a device that is known by name")
            .alternative("name the resource with --resource, as in the capacity of kubectl describe node")
            .alternative(format!("let a plugin offer one of {}", RESOURCES.join(", ")))),
        several => Err(Error::new(ErrorCode::Usage, format!("the nodes have several sorts of devices: {}", several.join(", ")))
            .alternative(format!("name one: --resource {}", several[0]))
            .alternative("list the nodes of one pool: kubectl get nodes -l KEY=VALUE -o json")),
    }
}

/// A node as a place for work.
struct Place {
    devices: u64,
    /// Of these, those that may be given to a pod.
    healthy: u64,
    is_open: bool,
    requested: u64,
    parts: u64,
}

impl Place {
    fn of(node: &Object, resource: &str) -> Result<Self> {
        let Status { capacity, allocatable, conditions, .. } = &node.status;
        let offered = quantity(node, allocatable, resource)?;
        let devices = quantity(node, capacity, resource)?.max(offered);
        let is_ready = conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True");
        let mut parts = 0;
        for name in capacity.keys().filter(|name| name.starts_with(PARTS) && *name != resource) {
            parts += quantity(node, capacity, name)?;
        }
        Ok(Self { devices, healthy: offered, is_open: is_ready && !node.spec.unschedulable, requested: 0, parts })
    }

    /// Devices that cannot be sold.
    fn used(&self) -> u64 {
        let away = self.devices - self.healthy;
        if self.is_open { self.requested.saturating_add(away).min(self.devices) } else { self.devices }
    }
}

/// How many whole devices of a resource are named.
fn quantity(object: &Object, named: &Labels, resource: &str) -> Result<u64> {
    let Some(text) = named.get(resource) else { return Ok(0) };
    text.parse::<u64>().ok().filter(|units| *units <= UNITS_MAX).ok_or_else(|| {
        let Metadata { namespace, name, .. } = &object.metadata;
        let (kind, namespace, name) = (shown(&object.kind), shown(namespace), shown(name));
        let message = format!("{kind} {namespace}/{name}: {resource} is '{}', which is no number of devices", shown(text));
        Error::new(ErrorCode::InvalidRequest, message)
            .alternative(format!("give a resource of whole devices, such as {}", RESOURCES[0]))
    })
}

/// What a pod has once it is bound.
fn requested(pod: &Object, resource: &str) -> Result<u64> {
    let of = |container: &Container| {
        let Resources { requests, limits } = &container.resources;
        quantity(pod, if requests.contains_key(resource) { requests } else { limits }, resource)
    };
    let (mut sidecars, mut first) = (0_u64, 0_u64);
    for container in &pod.spec.init_containers {
        let units = of(container)?;
        if container.restart_policy == "Always" {
            sidecars += units;
            first = first.max(sidecars);
        } else {
            first = first.max(sidecars + units);
        }
    }
    let mut all = sidecars;
    for container in &pod.spec.containers {
        all += of(container)?;
    }
    Ok(all.max(first) + quantity(pod, &pod.spec.overhead, resource)?)
}

/// Whether what a pod demands of its node is so of this one.
fn allows(spec: &Spec, node: &Object) -> bool {
    let labels = &node.metadata.labels;
    let selected = spec.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value));
    let fields = Labels::from([("metadata.name".to_owned(), node.metadata.name.clone())]);
    let fits = |term: &Term| {
        // A term that says nothing matches nothing.
        !(term.match_expressions.is_empty() && term.match_fields.is_empty())
            && term.match_expressions.iter().all(|expression| expression.holds(labels))
            && term.match_fields.iter().all(|expression| expression.holds(&fields))
    };
    selected && spec.affinity.node_affinity.required.as_ref().is_none_or(|terms| terms.node_selector_terms.iter().any(fits))
}

impl Expression {
    fn holds(&self, labels: &Labels) -> bool {
        let found = labels.get(&self.key);
        let number = |text: &String| text.parse::<i64>().ok();
        let bound = self.values.first().and_then(number);
        match self.operator.as_str() {
            "In" => found.is_some_and(|value| self.values.contains(value)),
            "NotIn" => found.is_none_or(|value| !self.values.contains(value)),
            "Exists" => found.is_some(),
            "DoesNotExist" => found.is_none(),
            "Gt" => found.and_then(number).zip(bound).is_some_and(|(value, bound)| value > bound),
            "Lt" => found.and_then(number).zip(bound).is_some_and(|(value, bound)| value < bound),
            // An operator of a later version may allow it; who waits is rather counted.
            _ => true,
        }
    }
}
