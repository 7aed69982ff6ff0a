//! What an operator reads of made-up hosts: goldens of `doctor` and `inventory`, and their JSON against its schemas.
//!
//! `NARROWS_BLESS=1` writes the goldens anew: read the difference before committing it. `NARROWS_PICTURES=FOLDER`
//! also writes the picture of every host there, folded and unfolded, to look at.
#![expect(
    clippy::unwrap_used,
    reason = "a test whose scene cannot be set up has failed"
)]

mod hosts;
mod inspections;
mod verbs;

use std::{fs, path::Path};

use boon::{Compiler, SchemaIndex, Schemas};
use narrows::{
    error::Color,
    view::{self, Scene, Topic, Wish},
};

use hosts::{Look, empty, healthy};

/// Compares with a golden file, or writes it.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("NARROWS_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == text,
        "{} differs (NARROWS_BLESS=1 writes it anew):\n{text}",
        path.display()
    );
}

#[test]
fn inventories_read_as_agreed() {
    for (name, look) in hosts::all() {
        golden(
            &format!("inventory-{name}.txt"),
            &view::tree(&look.scene(false), Color::Never),
        );
    }
}

#[test]
fn verdicts_read_as_agreed() {
    for (name, look) in hosts::all() {
        golden(
            &format!("doctor-{name}.txt"),
            &look.doctor(&Wish::default(), false),
        );
    }
}

#[test]
fn pictures_are_drawn_as_agreed() {
    for (name, look) in hosts::all() {
        if let Some(folder) = std::env::var_os("NARROWS_PICTURES") {
            let path = Path::new(&folder).join(format!("{name}.svg"));
            fs::write(path, view::svg(&look.scene(false))).unwrap();
            let path = Path::new(&folder).join(format!("{name}-all.svg"));
            fs::write(path, view::svg(&look.scene(true))).unwrap();
        }
        if matches!(name, "healthy" | "switch-without-acs") {
            golden(
                &format!("inventory-{name}.svg"),
                &view::svg(&look.scene(false)),
            );
            golden(
                &format!("inventory-{name}.dot"),
                &view::dot(&look.scene(false)),
            );
        }
    }
}

#[test]
fn inventories_as_json_have_the_published_form() {
    let form = Form::published("inventory");
    for (name, look) in hosts::all() {
        let json = view::inventory_json(&look.scene(false)).unwrap();
        form.holds(name, &json);
    }
}

#[test]
fn verdicts_as_json_have_the_published_form() {
    let form = Form::published("doctor");
    for (name, look) in hosts::all() {
        for is_all in [false, true] {
            let found = look.examine(&Wish {
                named: Vec::new(),
                is_all,
            });
            let json = view::doctor_json(&look.scene(is_all), &found, Some("x")).unwrap();
            form.holds(name, &json);
        }
    }
}

/// A schema that documents are held against.
struct Form(Schemas, SchemaIndex);

impl Form {
    fn published(name: &str) -> Self {
        let path = format!(
            "{}/docs/schema/{name}.schema.json",
            env!("CARGO_MANIFEST_DIR")
        );
        let text = fs::read_to_string(path).unwrap();
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        let schema = serde_json::from_str(&text).unwrap();
        compiler.add_resource("schema.json", schema).unwrap();
        let index = compiler.compile("schema.json", &mut schemas).unwrap();
        Self(schemas, index)
    }

    fn holds(&self, name: &str, json: &str) {
        let mut document: serde_json::Value = serde_json::from_str(json).unwrap();
        let result = self.0.validate(&document, self.1);
        assert!(result.is_ok(), "{name}: {:#}", result.unwrap_err());
        // The schema has teeth: what it does not know is no part of the document.
        document["surprise"] = true.into();
        assert!(self.0.validate(&document, self.1).is_err());
    }
}

#[test]
fn every_function_is_in_every_picture() {
    for (name, look) in hosts::all() {
        let scene = look.scene(true);
        let pictures = [
            view::tree(&scene, Color::Never),
            view::svg(&scene),
            view::dot(&scene),
        ];
        for bdf in look.topology.functions.keys() {
            for picture in &pictures {
                assert!(
                    picture.contains(&bdf.to_string()),
                    "{name}: {bdf} is missing"
                );
            }
        }
    }
}

#[test]
fn pictures_are_well_formed_whatever_devices_are_called() {
    let host = empty()
        .file(
            "usr/share/misc/pci.ids",
            "8086  A<b>&\"c\"\u{1}\n\t10c9  '\\\n",
        )
        .pf("0000:01:00.0", 12)
        .interface("<script>")
        .driver("a\"b");
    let look = Look::at("hostile", host);
    let svg = view::svg(&look.scene(false));
    assert!(svg.contains("A&lt;b&gt;&amp;&quot;c&quot;") && !svg.contains("<script"));
    assert!(!svg.contains('\u{1}'));
    assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
    let dot = view::dot(&look.scene(false));
    assert!(dot.contains("a\\\"b") && dot.contains("'\\\\"), "{dot}");
}

#[test]
fn a_tree_with_a_loop_is_shown_all_the_same() {
    let look = Look::at("loop", healthy());
    let mut topology = look.topology.clone();
    let [a, b] = ["0000:00:02.0", "0000:80:01.0"].map(|bdf| bdf.parse().unwrap());
    topology.functions.get_mut(&a).unwrap().parent = Some(b);
    topology.functions.get_mut(&b).unwrap().parent = Some(a);
    let scene = Scene {
        topology: &topology,
        ..look.scene(true)
    };
    let text = view::tree(&scene, Color::Never);
    for bdf in topology.functions.keys() {
        assert_eq!(
            text.matches(&format!("─ {bdf}")).count(),
            1,
            "{bdf}\n{text}"
        );
    }
}

#[test]
fn every_id_is_explained() {
    for topic in Topic::all() {
        let text = topic.text(Color::Never);
        assert!(text.lines().count() > 3, "{text}");
        assert!(!text.contains("]("), "{text}");
        let json: serde_json::Value = serde_json::from_str(&topic.to_json().unwrap()).unwrap();
        assert!(
            json["topics"][0]["title"].as_str().unwrap().len() > 5,
            "{json}"
        );
    }
    for id in ["group-shared", "device-no-reset", "smt-on", "bad-opt-out"] {
        golden(
            &format!("explain-{id}.txt"),
            &Topic::find(id).unwrap().text(Color::Never),
        );
    }
    let report = Topic::find("group-shard").unwrap_err();
    assert!(
        report.fix.contains("did you mean group-shared?"),
        "{report}"
    );
}

#[test]
fn every_id_is_listed_once() {
    let text = view::list_text(Color::Never);
    for topic in Topic::all() {
        let head = topic.text(Color::Never);
        let id = head.split([':', '\n']).next().unwrap();
        let row = format!("  {id} ");
        let listed = text.lines().filter(|line| line.starts_with(&row));
        assert_eq!(listed.count(), 1, "{id}");
    }
}

/// The blocks of docs/doctor.md that stand behind the name of a golden are that golden; blessed with it.
#[test]
fn examples_in_the_documents_are_goldens() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("docs/doctor.md");
    let text = fs::read_to_string(&path).unwrap();
    let mut pieces = text.split("<!-- tests/golden/");
    let mut fresh = pieces.next().unwrap().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once(" -->\n```\n").unwrap();
        let (_, rest) = rest.split_once("```\n").unwrap();
        let golden = fs::read_to_string(root.join("tests/golden").join(name)).unwrap();
        fresh.push_str(&format!(
            "<!-- tests/golden/{name} -->\n```\n{golden}```\n{rest}"
        ));
    }
    assert!(fresh.matches("<!-- tests/golden/").count() > 3);
    if std::env::var_os("NARROWS_BLESS").is_some() {
        return fs::write(&path, &fresh).unwrap();
    }
    assert!(
        fresh == text,
        "docs/doctor.md shows something else (NARROWS_BLESS=1 writes it anew)"
    );
}
