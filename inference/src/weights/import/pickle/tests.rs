use proptest::prelude::*;

use super::*;

fn reason(bytes: &[u8]) -> PickleReason {
    Pickle::read(bytes).unwrap_err().reason
}

/// `{'a': [1, -2, True], 'n': collections.OrderedDict([('k', 0.5)])}`, as Python writes it.
const SAMPLE: &[u8] =
    b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01J\xfe\xff\xff\xff\x88eX\x01\x00\x00\x00nq\x03\
    ccollections\nOrderedDict\nq\x04)Rq\x05X\x01\x00\x00\x00kq\x06G?\xe0\x00\x00\x00\x00\x00\x00su.";

#[test]
fn what_python_writes_is_read() {
    let pickle = Pickle::read(SAMPLE).unwrap();
    let list = pickle.elements(pickle.value(pickle.root(), "a").unwrap()).unwrap();
    assert_eq!((pickle.int(list[0]), pickle.int(list[1])), (Some(1), Some(-2)));
    assert_eq!(pickle.get(list[2]), &Value::Bool(true));
    let dict = pickle.value(pickle.root(), "n").unwrap();
    assert_eq!(pickle.global(pickle.object(dict).unwrap().class), Some(("collections", "OrderedDict")));
    assert_eq!(pickle.get(pickle.value(dict, "k").unwrap()), &Value::Float(0.5));
}

#[test]
fn code_to_run_is_a_name_beside_its_arguments() {
    // What would delete everything if it were unpickled.
    let pickle = Pickle::read(b"\x80\x02cos\nsystem\nX\x08\x00\x00\x00rm -rf /\x85R.").unwrap();
    let call = pickle.object(pickle.root()).unwrap();
    assert_eq!(pickle.global(call.class), Some(("os", "system")));
    assert_eq!(pickle.text(pickle.elements(call.args).unwrap()[0]), Some("rm -rf /"));
}

#[test]
fn every_beginning_of_a_pickle_is_refused() {
    for length in 0..SAMPLE.len() {
        let error = Pickle::read(&SAMPLE[..length]).unwrap_err();
        assert_eq!(error.reason, PickleReason::End, "{length}");
        assert!(error.to_string().contains(&format!("at byte {}", error.at)));
    }
}

#[test]
fn what_makes_no_sense_is_named() {
    assert_eq!(reason(b"\x80\x05."), PickleReason::Protocol(5));
    assert_eq!(reason(b"\x80\x02i"), PickleReason::Opcode(b'i'));
    assert_eq!(reason(b"\x80\x02."), PickleReason::Stack);
    assert_eq!(reason(b"K\x01t"), PickleReason::Mark);
    assert_eq!(reason(b"h\x07"), PickleReason::Memo(7));
    assert_eq!(reason(b"K\x01K\x02a"), PickleReason::Container);
    assert_eq!(reason(b"K\x01K\x02b"), PickleReason::Container);
    assert_eq!(reason(b"}(K\x01u"), PickleReason::Pairs);
    assert_eq!(reason(b"X\x01\x00\x00\x00\xff"), PickleReason::Utf8);
    // It may not take what lies before an open mark.
    assert_eq!(reason(b"K\x01(0"), PickleReason::Stack);
    assert_eq!(reason(b"]K\x01(a"), PickleReason::Stack);
}

#[test]
fn a_declared_length_reserves_nothing() {
    assert_eq!(reason(b"X\xff\xff\xff\xffabc"), PickleReason::End);
    assert_eq!(reason(b"B\xff\xff\xff\xffabc"), PickleReason::End);
}

#[test]
fn more_values_than_any_checkpoint_has_are_refused() {
    let over = MOST_VALUES + 1;
    for endless in
        [b"N".repeat(over), b"(".repeat(over), b"]".repeat(over), [b"N".to_vec(), b"2".repeat(over)].concat()]
    {
        assert_eq!(reason(&endless), PickleReason::Values);
    }
    let remembered: Vec<u8> =
        (0..over as u32).flat_map(|number| [b"r".as_slice(), &number.to_le_bytes()].concat()).collect();
    assert_eq!(reason(&[b"N".to_vec(), remembered].concat()), PickleReason::Values);
}

#[test]
fn deep_nesting_needs_no_stack() {
    // ((((…)))): each tuple holds the one before.
    let pickle = [b")".to_vec(), b"\x85".repeat(500_000), b".".to_vec()].concat();
    let pickle = Pickle::read(&pickle).unwrap();
    assert_eq!(pickle.elements(pickle.root()).unwrap().len(), 1);
}

#[test]
fn a_circle_and_a_memo_bomb_are_a_few_values() {
    let circle = Pickle::read(b"]q\x00h\x00a.").unwrap();
    assert_eq!(circle.elements(circle.root()), Some([circle.root()].as_slice()));
    // Each list holds the one before ten times: 10^100 elements if it were written out.
    let bomb = [b"]q\x00".to_vec(), [b"](".to_vec(), b"h\x00".repeat(10), b"eq\x00".to_vec()].concat().repeat(100)];
    let bomb = [bomb.concat(), b".".to_vec()].concat();
    assert_eq!(Pickle::read(&bomb).unwrap().values.len(), 101);
}

#[test]
fn long_dictionaries_are_not_searched() {
    let pair = b"K\x01K\x02";
    let dict = |pairs: usize| [b"}(".to_vec(), pair.repeat(pairs), b"u.".to_vec()].concat();
    let entries = |bytes: &[u8]| Pickle::read(bytes).map(|p| p.entries(p.root()).map(<[_]>::len)).unwrap();
    assert_eq!(entries(&dict(MOST_ENTRIES)), Some(MOST_ENTRIES));
    assert_eq!(entries(&dict(MOST_ENTRIES + 1)), None);
}

#[test]
fn long_integers_keep_their_sign() {
    let int = |bytes: &[u8]| {
        let pickle = [&[0x8a, bytes.len() as u8], bytes, b"."].concat();
        Pickle::read(&pickle).map(|p| p.int(p.root())).unwrap()
    };
    assert_eq!([int(b""), int(b"\xff"), int(b"\xff\x00")], [Some(0), Some(-1), Some(255)]);
    assert_eq!(int(&[0x7f; 9]), None);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Pickle::read(&bytes);
    }

    /// Mostly opcodes: they come further.
    #[test]
    fn random_opcodes_never_panic(
        ops in prop::collection::vec(prop::sample::select(b"().012NKMJ]ae}suqrhjRb\x81\x85\x86\x87\x88Q\0\x01".to_vec()), 0..400),
    ) {
        let _ = Pickle::read(&ops);
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0..SAMPLE.len(), byte: u8) {
        let mut bytes = SAMPLE.to_vec();
        bytes[at] = byte;
        let _ = Pickle::read(&bytes);
    }
}
