//! The table `[sandbox]`: layers of the jail that the guest may do without, and how much its processes may have.

use iommu::addr::ByteLen;
use serde::Serialize;

use super::{near::nearest, reader::Table, values::size};
use crate::{
    error::{ErrorId, Report},
    layers::{Layer, LayerSet},
};

const KEYS: &[&str] = &["without", "cpu_percent", "memory_overhead"];

/// The least that the supervisor's processes run with.
const LEAST_OVERHEAD: ByteLen = ByteLen::new(16 << 20);

/// What the operator says of the jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SandboxSpec {
    /// Layers that the guest runs without where the kernel lacks them. One that it has is never left away.
    pub without: LayerSet,
    /// Processor time of all vCPUs together, in hundredths of a processor; `None`: one processor for each.
    pub cpu_percent: Option<u32>,
    /// Memory of the guest's processes besides RAM, images and page tables.
    pub memory_overhead: ByteLen,
}

impl Default for SandboxSpec {
    fn default() -> Self {
        Self {
            without: LayerSet::default(),
            cpu_percent: None,
            memory_overhead: ByteLen::new(64 << 20),
        }
    }
}

/// Reads the table. V has at most `vcpus` processors to itself.
pub(super) fn sandbox(mut table: Table<'_>, vcpus: u32) -> Option<SandboxSpec> {
    let usual = SandboxSpec::default();
    let mut without = LayerSet::default();
    for word in table.strings("without") {
        match Layer::from_name(&word.value) {
            Some(layer) if layer.may_be_absent() => without.insert(layer),
            Some(_) | None => {
                let _: Option<()> = table.problem(not_to_be_missed(&word.value), word.place);
            }
        }
    }
    let most = usize::try_from(vcpus)
        .unwrap_or(usize::MAX)
        .saturating_mul(100);
    let cpu_percent = table.number("cpu_percent", 1..=most);
    let overhead = match table.string("memory_overhead") {
        None => Some(usual.memory_overhead),
        Some(text) => match size(&text.value).and_then(check_overhead) {
            Ok(overhead) => Some(overhead),
            Err(report) => table.problem(report, text.place),
        },
    };
    table.finish(KEYS);
    Some(SandboxSpec {
        without,
        cpu_percent: cpu_percent.map(|number| number.value),
        memory_overhead: overhead?,
    })
}

fn check_overhead(size: ByteLen) -> Result<ByteLen, Report> {
    if size >= LEAST_OVERHEAD {
        return Ok(size);
    }
    Err(Report::new(
        ErrorId::BadSize,
        format!("an overhead of {size} is not possible"),
        format!("the guest's processes need {LEAST_OVERHEAD} at least"),
        "write a larger size",
    ))
}

fn not_to_be_missed(word: &str) -> Report {
    let what = format!("{word:?} cannot be done without");
    if let Some(layer) = Layer::from_name(word) {
        let (Ok(why) | Err(why)) = layer.row().excepted;
        return Report::new(ErrorId::BadLayer, what, why, layer.row().fix);
    }
    let known = Layer::all().filter(|layer| layer.may_be_absent());
    let names: Vec<&str> = known.map(Layer::name).collect();
    let fix = match nearest(word, &names) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("known: {}", names.join(", ")),
    };
    Report::new(ErrorId::BadLayer, what, "no layer has that name", fix)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::spec::GuestSpec;

    const HEAD: &str = "name = \"g\"\nmemory = \"64M\"\nkernel = \"k\"\nvcpus = 2\n";

    fn parse(table: &str) -> Result<SandboxSpec, Vec<Report>> {
        GuestSpec::parse(Path::new("g.toml"), &format!("{HEAD}{table}")).map(|spec| spec.sandbox)
    }

    #[test]
    fn without_the_table_nothing_is_missed() {
        let spec = parse("").unwrap();
        assert_eq!(spec, SandboxSpec::default());
        assert!(spec.without.is_empty());
    }

    #[test]
    fn layers_and_limits_are_read() {
        let spec = parse(
            "[sandbox]\nwithout = [\"mseal\", \"time-namespace\"]\ncpu_percent = 150\nmemory_overhead = \"128M\"\n",
        )
        .unwrap();
        let without: Vec<Layer> = spec.without.iter().collect();
        assert_eq!(without, [Layer::TimeNamespace, Layer::Mseal]);
        assert_eq!(spec.cpu_percent, Some(150));
        assert_eq!(spec.memory_overhead.raw(), 128 << 20);
    }

    #[test]
    fn a_layer_that_every_host_has_cannot_be_given_up() {
        for layer in Layer::all().filter(|layer| !layer.may_be_absent()) {
            let problems = parse(&format!("[sandbox]\nwithout = [\"{layer}\"]\n")).unwrap_err();
            assert_eq!(problems.len(), 1);
            assert_eq!(problems[0].id, ErrorId::BadLayer, "{layer}");
            assert_eq!(problems[0].location.as_ref().unwrap().line, 6);
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_was_meant() {
        for (table, id, fix) in [
            (
                "without = [\"msael\"]",
                ErrorId::BadLayer,
                "did you mean \"mseal\"?",
            ),
            ("without = [\"apparmor\"]", ErrorId::BadLayer, "known: "),
            ("cpu_percent = 0", ErrorId::BadNumber, "that range"),
            ("cpu_percent = 201", ErrorId::BadNumber, "that range"),
            ("memory_overhead = \"1M\"", ErrorId::BadSize, "larger"),
            ("memory_overhead = \"much\"", ErrorId::BadSize, "K, M or G"),
            ("witout = []", ErrorId::SpecUnknownKey, "sandbox.without"),
        ] {
            let problems = parse(&format!("[sandbox]\n{table}\n")).unwrap_err();
            assert_eq!(problems.len(), 1, "{table}");
            assert_eq!(problems[0].id, id, "{table}");
            assert!(problems[0].fix.contains(fix), "{}", problems[0]);
        }
    }
}
