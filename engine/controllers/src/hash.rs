//! A short name for a pod template, of which revisions and their pods are called.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// The letters of a hash, without vowels and look-alikes so that no word comes out.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Ten letters that differ where the templates differ.
pub(crate) fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let text = serde_json::to_vec(template).expect("a template is plain data");
    let mut hash = text
        .iter()
        .chain(&collisions.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let count = LETTERS.len() as u64;
    let letter = |_| {
        let letter = LETTERS[usize::try_from(hash % count).expect("less than the number of letters")];
        hash /= count;
        char::from(letter)
    };
    (0..10).map(letter).collect()
}
