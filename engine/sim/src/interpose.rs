//! The clock and the randomness of the C library, as a simulation has them.
//!
//! Whatever asks `clock_gettime` or `getrandom` on a thread inside a simulation (the standard library, `getrandom`, and all
//! that stands on them) is answered from the simulation's clock and seed; every other thread gets the kernel's answer. Only
//! the thread that entered is inside. Nothing here knows of clusters.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::Duration;

use jiff::Timestamp;

/// What the monotonic clocks show when a simulation begins. Small, so that whoever waits for a moment of them in the kernel
/// does not wait long.
const MONOTONIC: Duration = Duration::from_secs(1000);

#[derive(Clone, Copy)]
struct Simulated {
    inside: bool,
    random: u64,
    /// Time since the beginning.
    elapsed: Duration,
    /// The wall clock at the beginning, in nanoseconds since 1970, and how far it has been set forward since.
    wall: i128,
}

thread_local! {
    static SIMULATED: Cell<Simulated> =
        const { Cell::new(Simulated { inside: false, random: 0, elapsed: Duration::ZERO, wall: 0 }) };
}

/// The thread is inside a simulation as long as this lives.
#[derive(Debug)]
pub(crate) struct Inside(PhantomData<*const ()>);

impl Inside {
    /// Enters: randomness follows from `seed`, the wall clock stands at `wall`.
    pub(crate) fn enter(seed: u64, wall: Timestamp) -> Self {
        let entered = Simulated { inside: true, random: seed, elapsed: Duration::ZERO, wall: wall.as_nanosecond() };
        assert!(!SIMULATED.replace(entered).inside, "one simulation a thread");
        Self(PhantomData)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        SIMULATED.set(Simulated { inside: false, ..SIMULATED.get() });
    }
}

/// Sets the clocks to a time since the beginning.
pub(crate) fn set_elapsed(elapsed: Duration) {
    SIMULATED.set(Simulated { elapsed, ..SIMULATED.get() });
}

/// Sets the wall clock forward, or back when `seconds` is negative, as an administrator does; timers do not notice.
pub(crate) fn jump(seconds: i64) {
    let state = SIMULATED.get();
    SIMULATED.set(Simulated { wall: state.wall + i128::from(seconds) * 1_000_000_000, ..state });
}

/// SplitMix64: every seed gives a sequence of its own.
fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *random;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn fill(buffer: &mut [u8]) {
    let mut state = SIMULATED.get();
    for piece in buffer.chunks_mut(8) {
        let bytes = next(&mut state.random).to_le_bytes();
        piece.copy_from_slice(&bytes[..piece.len()]);
    }
    SIMULATED.set(state);
}

/// What a clock shows, if it is one that the simulation has.
fn read(clock: libc::clockid_t) -> Option<libc::timespec> {
    let state = SIMULATED.get();
    let wall = state.wall + i128::try_from(state.elapsed.as_nanos()).ok()?;
    let nanoseconds = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => wall,
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_BOOTTIME => {
            i128::try_from((MONOTONIC + state.elapsed).as_nanos()).ok()?
        }
        _ => return None,
    };
    let (seconds, rest) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
    Some(libc::timespec { tv_sec: seconds.try_into().ok()?, tv_nsec: rest.try_into().ok()? })
}

/// In place of the C library's.
///
/// # Safety
/// As there: `time` is null or points to a `timespec` that may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    if SIMULATED.get().inside
        && !time.is_null()
        && let Some(shown) = read(clock)
    {
        // SAFETY: not null, and the caller promises that it may be written.
        unsafe { time.write(shown) };
        return 0;
    }
    // SAFETY: the caller's arguments, unchanged; the kernel checks the pointer.
    let answer = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    if answer == 0 { 0 } else { -1 }
}

/// In place of the C library's.
///
/// # Safety
/// As there: `buffer` points to `length` bytes that may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    if SIMULATED.get().inside
        && !buffer.is_null()
        && let Ok(filled) = libc::ssize_t::try_from(length)
    {
        // SAFETY: not null, and the caller promises that so many bytes may be written; zeroed before they are a slice.
        let bytes = unsafe {
            buffer.cast::<u8>().write_bytes(0, length);
            std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length)
        };
        fill(bytes);
        return filled;
    }
    // SAFETY: the caller's arguments, unchanged; the kernel checks the pointer.
    let answer = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
    libc::ssize_t::try_from(answer).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use std::collections::hash_map::RandomState;
    use std::hash::BuildHasher;
    use std::time::{Instant, SystemTime};

    use super::*;

    /// A thread of its own: hash maps draw their seed once a thread.
    fn inside<T: Send + 'static>(seed: u64, work: impl FnOnce() -> T + Send + 'static) -> T {
        let wall = Timestamp::from_second(1_000_000_000).unwrap();
        let thread = std::thread::spawn(move || {
            let _inside = Inside::enter(seed, wall);
            work()
        });
        thread.join().unwrap()
    }

    #[test]
    fn clocks_stand_until_they_are_set_and_only_the_wall_clock_jumps() {
        let (began, wall, before, after) = inside(1, || {
            let (began, before) = (Instant::now(), Timestamp::now());
            set_elapsed(Duration::from_secs(5));
            jump(-60);
            (began.elapsed(), SystemTime::now(), before, Timestamp::now())
        });
        assert_eq!(began, Duration::from_secs(5));
        assert_eq!(before.as_second(), 1_000_000_000);
        assert_eq!(after.as_second(), 1_000_000_000 + 5 - 60);
        assert_eq!(Timestamp::try_from(wall).unwrap(), after);
        assert!(Timestamp::now().as_second() > 1_700_000_000, "outside it is today");
    }

    #[test]
    fn all_randomness_follows_from_the_seed() {
        let drawn = |seed| {
            inside(seed, || {
                let mut bytes = [0; 24];
                getrandom::fill(&mut bytes).unwrap();
                (RandomState::new().hash_one(1), fastrand::u64(..), uuid::Uuid::new_v4(), bytes)
            })
        };
        let (one, again, two) = (drawn(1), drawn(1), drawn(2));
        assert_eq!((one.0, one.2, one.3), (again.0, again.2, again.3));
        assert!(one.0 != two.0 && one.2 != two.2 && one.3 != two.3);
    }
}
