use super::*;

/// RFC 8684 §3.1: a token names one connection.
#[test]
fn a_key_whose_token_is_taken_is_drawn_again() {
    let shard = || Shard::new(ShardConfig::single(7));
    let first = shard().new_key();
    let mut taken = shard();
    taken.tokens.insert(first.token, 0);
    let second = taken.new_key();
    assert_ne!(second.token, first.token);
    assert_eq!(taken.counters.mp_fallback_token_init, 1);
}
