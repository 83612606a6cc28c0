//! What extends the API: webhooks and policies of admission, custom resources, aggregated servers.

use super::{BASE, Row, STATUS};
use crate::strategy;
use crate::table;

pub(super) const ROWS: &[Row] = &[
    Row {
        kind: "MutatingAdmissionPolicy",
        plural: "mutatingadmissionpolicies",
        categories: &["api-extensions"],
        namespaced: false,
        columns: table::MUTATING_POLICY,
        strategy: &strategy::MUTATING_POLICY,
        ..ADMISSION
    },
    Row {
        kind: "MutatingAdmissionPolicyBinding",
        plural: "mutatingadmissionpolicybindings",
        categories: &["api-extensions"],
        namespaced: false,
        columns: table::POLICY_BINDING,
        strategy: &strategy::MUTATING_POLICY_BINDING,
        ..ADMISSION
    },
    Row {
        kind: "MutatingWebhookConfiguration",
        plural: "mutatingwebhookconfigurations",
        categories: &["api-extensions"],
        namespaced: false,
        columns: table::WEBHOOKS,
        strategy: &strategy::MUTATING_WEBHOOKS,
        ..ADMISSION
    },
    Row {
        kind: "ValidatingAdmissionPolicy",
        plural: "validatingadmissionpolicies",
        categories: &["api-extensions"],
        namespaced: false,
        subresources: &[STATUS],
        columns: table::VALIDATING_POLICY,
        strategy: &strategy::VALIDATING_POLICY,
        ..ADMISSION
    },
    Row {
        kind: "ValidatingAdmissionPolicyBinding",
        plural: "validatingadmissionpolicybindings",
        categories: &["api-extensions"],
        namespaced: false,
        columns: table::POLICY_BINDING,
        strategy: &strategy::VALIDATING_POLICY_BINDING,
        ..ADMISSION
    },
    Row {
        kind: "ValidatingWebhookConfiguration",
        plural: "validatingwebhookconfigurations",
        categories: &["api-extensions"],
        namespaced: false,
        columns: table::WEBHOOKS,
        strategy: &strategy::VALIDATING_WEBHOOKS,
        ..ADMISSION
    },
    Row {
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        short_names: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        subresources: &[STATUS],
        columns: table::CREATED,
        strategy: &crate::custom::Definition,
        ..EXTENSIONS
    },
    Row {
        kind: "APIService",
        plural: "apiservices",
        categories: &["api-extensions"],
        namespaced: false,
        subresources: &[STATUS],
        columns: table::API_SERVICE,
        strategy: &strategy::API_SERVICE,
        ..REGISTRATION
    },
];

const ADMISSION: Row =
    Row { group: "admissionregistration.k8s.io", package: "io.k8s.api.admissionregistration", ..BASE };

const EXTENSIONS: Row =
    Row { group: "apiextensions.k8s.io", package: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions", ..BASE };

const REGISTRATION: Row =
    Row { group: "apiregistration.k8s.io", package: "io.k8s.kube-aggregator.pkg.apis.apiregistration", ..BASE };
