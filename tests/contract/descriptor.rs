//! Walks the compiled contract: the same bytes that reflection serves.

use crate::reflection;
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use std::collections::{BTreeSet, HashMap};

const PACKAGE: &str = "consent.v1";

/// The contract's own files; what they import is others'.
pub(crate) fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(consent::DESCRIPTOR).expect("a descriptor set");
    set.file.into_iter().filter(|file| file.package() == PACKAGE).collect()
}

/// The leading comment of everything in a file, by its path (descriptor.proto, SourceCodeInfo).
pub(crate) fn comments(file: &FileDescriptorProto) -> HashMap<Vec<i32>, String> {
    let info = file.source_code_info.as_ref().expect("comments in the descriptor");
    let located = info.location.iter();
    located.map(|at| (at.path.clone(), at.leading_comments().trim().to_owned())).collect()
}

/// What must have a comment: its path in the file, and its name for people.
fn parts(file: &FileDescriptorProto) -> Vec<(Vec<i32>, String)> {
    let mut parts = Vec::new();
    for (i, message) in numbered(&file.message_type) {
        of_message(vec![4, i], message, PACKAGE, &mut parts);
    }
    for (i, kind) in numbered(&file.enum_type) {
        of_enum(vec![5, i], kind, PACKAGE, &mut parts);
    }
    for (i, service) in numbered(&file.service) {
        parts.push((vec![6, i], service.name().to_owned()));
        for (j, method) in numbered(&service.method) {
            parts.push((vec![6, i, 2, j], format!("{}.{}", service.name(), method.name())));
        }
    }
    parts
}

fn of_message(path: Vec<i32>, message: &DescriptorProto, scope: &str, parts: &mut Vec<(Vec<i32>, String)>) {
    let name = format!("{scope}.{}", message.name());
    let below = |list: i32, i: i32| [path.as_slice(), &[list, i]].concat();
    for (i, field) in numbered(&message.field) {
        parts.push((below(2, i), format!("{name}.{}", field.name())));
    }
    for (i, oneof) in numbered(&message.oneof_decl) {
        // `optional` makes a oneof of its own, which nobody wrote.
        let written = message.field.iter().any(|f| f.oneof_index == Some(i) && !f.proto3_optional());
        if written {
            parts.push((below(8, i), format!("{name}.{}", oneof.name())));
        }
    }
    for (i, nested) in numbered(&message.nested_type) {
        of_message(below(3, i), nested, &name, parts);
    }
    for (i, kind) in numbered(&message.enum_type) {
        of_enum(below(4, i), kind, &name, parts);
    }
    parts.push((path, name));
}

fn of_enum(path: Vec<i32>, kind: &EnumDescriptorProto, scope: &str, parts: &mut Vec<(Vec<i32>, String)>) {
    let name = format!("{scope}.{}", kind.name());
    for (i, value) in numbered(&kind.value) {
        parts.push(([path.as_slice(), &[2, i]].concat(), format!("{name}.{}", value.name())));
    }
    parts.push((path, name));
}

fn numbered<T>(list: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0..).zip(list)
}

#[test]
fn nothing_stands_without_a_comment() {
    let mut seen = 0;
    for file in files() {
        let comments = comments(&file);
        for (path, name) in parts(&file) {
            let comment = comments.get(&path).map_or("", String::as_str);
            assert!(comment.len() > 3, "{name} in {} has no comment", file.name());
            seen += 1;
        }
    }
    assert!(seen > 200, "only {seen} parts of the contract were found");
}

#[test]
fn zero_of_every_enum_is_unspecified() {
    let mut seen = 0;
    let in_messages = |file: &FileDescriptorProto| -> Vec<EnumDescriptorProto> {
        file.message_type.iter().flat_map(|message| message.enum_type.clone()).collect()
    };
    for file in files() {
        for kind in file.enum_type.iter().cloned().chain(in_messages(&file)) {
            let zero = kind.value.iter().find(|value| value.number() == 0).expect("a zero");
            let expected = format!("{}_UNSPECIFIED", screaming(kind.name()));
            assert_eq!(zero.name(), expected, "{}", kind.name());
            seen += 1;
        }
    }
    assert!(seen >= 7, "only {seen} enums were found");
}

#[test]
fn unspecified_is_never_an_allow() {
    // What a reader that meets nothing, or something newer, falls back to.
    for unread in [0, 3, 99, -1] {
        let answer = consent::pb::CanTrainResponse { decision: unread, ..Default::default() };
        assert_ne!(answer.decision(), consent::pb::Decision::Allow);
    }
}

#[test]
fn nothing_is_declared_that_is_not_served() {
    let files = files();
    let declared: BTreeSet<&str> =
        files.iter().flat_map(|file| file.service.iter().map(|service| service.name())).collect();
    // Whether they serve every method of these is asked of the servers there.
    let served: BTreeSet<&str> = reflection::AUTHORITY.into_iter().chain(reflection::SIDECAR).collect();
    assert_eq!(declared, served);
}

fn screaming(name: &str) -> String {
    let mut text = String::new();
    for (i, c) in name.chars().enumerate() {
        if i > 0 && c.is_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}
