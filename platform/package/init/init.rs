//! The first process of each container: starts the program, forwards signals to it, reaps orphans and ends with the
//! program's exit code. A few kilobytes, static, without a library: it must run in an image that holds nothing else.
//!
//! Usage: `init [--] program [argument...]`. Exits with the program's code, 128 + signal, 127 if the program is not
//! there or 126 if it cannot be executed.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::ptr::{null, null_mut};

#[cfg(target_arch = "x86_64")]
mod number {
    pub const WRITE: usize = 1;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const PRCTL: usize = 157;
    pub const EXIT_GROUP: usize = 231;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const KILL: usize = 129;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const PRCTL: usize = 167;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
}

const ENOENT: isize = -2;
const EINTR: isize = -4;
const ENOTDIR: isize = -20;
const SIGCHLD: usize = 17;
/// Signals that a fault in this very process raises; blocking them would only hide it.
const FAULTS: [usize; 6] = [4, 5, 7, 8, 11, 31];
const SIG_SETMASK: usize = 2;
const WNOHANG: usize = 1;
const PR_SET_CHILD_SUBREAPER: usize = 36;
const MASK_SIZE: usize = 8;
const PATH_SIZE: usize = 4096;

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {start}",
    "ud2",
    start = sym start,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, #0",
    "mov x30, #0",
    "mov x0, sp",
    "and sp, x0, #0xfffffffffffffff0",
    "bl {start}",
    "brk #1",
    start = sym start,
);

/// One system call.
///
/// # Safety
/// The arguments must be what the kernel expects for this number.
#[cfg(target_arch = "x86_64")]
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the kernel changes rax, rcx, r11 and the memory that the caller vouches for. r8 is the fifth argument,
    // which only clone has here, as zero.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
             in("r8") 0, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// One system call.
///
/// # Safety
/// The arguments must be what the kernel expects for this number.
#[cfg(target_arch = "aarch64")]
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    // SAFETY: the kernel changes x0 and the memory that the caller vouches for. x4 is the fifth argument, which only
    // clone has here, as zero.
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d, in("x4") 0,
             options(nostack));
    }
    result
}

fn exit(code: usize) -> ! {
    loop {
        // SAFETY: ends the process.
        unsafe { call(number::EXIT_GROUP, code, 0, 0, 0) };
    }
}

/// Says something on the standard error output; nothing is to be done if that fails.
fn say(text: &[u8]) {
    // SAFETY: the buffer is a live slice.
    unsafe { call(number::WRITE, 2, text.as_ptr() as usize, text.len(), 0) };
}

/// The bytes of a C string.
///
/// # Safety
/// `text` must point to a string that ends with a zero byte and lives as long as the process.
unsafe fn bytes(text: *const u8) -> &'static [u8] {
    // SAFETY: by the caller's word there is a zero byte ahead.
    unsafe { core::slice::from_raw_parts(text, strlen(text)) }
}

/// Where the kernel left `argc`, `argv` and the environment.
extern "C" fn start(stack: *const usize) -> ! {
    // SAFETY: the kernel lays out argc, argv, zero, environment, zero at the first stack pointer.
    let (arguments, environment) = unsafe { (stack.add(1).cast::<*const u8>(), stack.add(2 + *stack)) };
    let mut program = arguments;
    // SAFETY: argv ends with zero, which stops each step forward.
    unsafe {
        if !(*program).is_null() {
            program = program.add(1);
        }
        if !(*program).is_null() && bytes(*program) == b"--" {
            program = program.add(1);
        }
        if (*program).is_null() {
            say(b"init: no program given\n");
            exit(127);
        }
    }
    run(program, environment.cast())
}

fn run(program: *const *const u8, environment: *const *const u8) -> ! {
    let mut mask = u64::MAX;
    for signal in FAULTS {
        mask &= !(1 << (signal - 1));
    }
    let mut before = 0u64;
    // SAFETY: both masks are live and 8 bytes long; prctl and clone take numbers only. The clone shares nothing, so the
    // child goes on with its own copy of this stack.
    let child = unsafe {
        call(number::PRCTL, PR_SET_CHILD_SUBREAPER, 1, 0, 0);
        call(number::RT_SIGPROCMASK, SIG_SETMASK, &raw const mask as usize, &raw mut before as usize, MASK_SIZE);
        call(number::CLONE, SIGCHLD, 0, 0, 0)
    };
    if child == 0 {
        // SAFETY: the mask is live; execute() gets the kernel's own lists.
        unsafe {
            call(number::RT_SIGPROCMASK, SIG_SETMASK, &raw const before as usize, 0, MASK_SIZE);
            execute(program, environment);
        }
    }
    if child < 0 {
        say(b"init: cannot start a process\n");
        exit(126);
    }
    supervise(child, mask)
}

/// Waits for signals: forwards them to the program, reaps on SIGCHLD, ends with the program.
fn supervise(child: isize, mask: u64) -> ! {
    loop {
        // SAFETY: the mask is live; no information and no timeout are asked for.
        let signal =
            unsafe { call(number::RT_SIGTIMEDWAIT, &raw const mask as usize, 0, null::<u8>() as usize, MASK_SIZE) };
        if signal == SIGCHLD as isize || signal == EINTR {
            reap(child);
        } else if signal > 0 {
            // SAFETY: sends a signal to our own child, which is not reaped yet.
            unsafe { call(number::KILL, child as usize, signal as usize, 0, 0) };
        }
    }
}

/// Reaps all that has ended; does not return once the program has.
fn reap(child: isize) {
    loop {
        let mut status = 0i32;
        // SAFETY: the status is live; no usage is asked for.
        let ended =
            unsafe { call(number::WAIT4, usize::MAX, &raw mut status as usize, WNOHANG, null_mut::<u8>() as usize) };
        if ended <= 0 {
            return;
        }
        if ended == child {
            let signal = status & 0x7f;
            exit(if signal == 0 { (status >> 8 & 0xff) as usize } else { 128 + signal as usize });
        }
    }
}

/// Replaces this process by the program, searched along PATH if it has no slash.
///
/// # Safety
/// Both lists must be the kernel's: pointers to C strings, ended by zero.
unsafe fn execute(program: *const *const u8, environment: *const *const u8) -> ! {
    // SAFETY: by the caller's word; the path buffer is live and ends with zero.
    unsafe {
        let name = bytes(*program);
        let mut error = ENOENT;
        if name.contains(&b'/') {
            error = call(number::EXECVE, *program as usize, program as usize, environment as usize, 0);
        } else {
            for folder in path(environment).split(|&byte| byte == b':') {
                let mut buffer = [0u8; PATH_SIZE];
                let Some(length) = join(&mut buffer, folder, name) else { continue };
                let path = buffer[..length].as_ptr();
                let failed = call(number::EXECVE, path as usize, program as usize, environment as usize, 0);
                if failed != ENOENT && failed != ENOTDIR {
                    error = failed;
                }
            }
        }
        say(b"init: cannot run ");
        say(name);
        if error == ENOENT {
            say(b": it, or the interpreter that it names, is not in the image\n");
            exit(127);
        }
        say(b": it cannot be executed\n");
        exit(126)
    }
}

/// The value of PATH.
///
/// # Safety
/// The list must be the kernel's: pointers to C strings, ended by zero.
unsafe fn path(mut environment: *const *const u8) -> &'static [u8] {
    // SAFETY: by the caller's word.
    unsafe {
        while !(*environment).is_null() {
            if let Some(value) = bytes(*environment).strip_prefix(b"PATH=") {
                return value;
            }
            environment = environment.add(1);
        }
    }
    b"/usr/local/bin:/usr/bin:/bin"
}

/// `folder/name` and a zero byte; None if it does not fit.
fn join(buffer: &mut [u8; PATH_SIZE], folder: &[u8], name: &[u8]) -> Option<usize> {
    let folder = if folder.is_empty() { b"." } else { folder };
    let all = folder.iter().chain(b"/").chain(name);
    if folder.len() + name.len() + 2 > PATH_SIZE {
        return None;
    }
    let mut length = 0;
    for &byte in all {
        buffer[length] = byte;
        length += 1;
    }
    Some(length)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(125)
}

/// What the compiler calls for larger moves; there is no C library to bring it.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    for index in 0..count {
        // SAFETY: by the caller's word. Volatile, so that the loop is not turned into a call of this function.
        unsafe { to.add(index).write_volatile(value as u8) };
    }
    to
}

/// As in C.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    for index in 0..count {
        // SAFETY: as above.
        unsafe { to.add(index).write_volatile(from.add(index).read()) };
    }
    to
}

/// As in C.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    for index in 0..count {
        // SAFETY: as above.
        let (left, right) = unsafe { (a.add(index).read_volatile(), b.add(index).read_volatile()) };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

/// As in C.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: by the caller's word there is a zero byte ahead.
    while unsafe { text.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}

/// As in C.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    // SAFETY: as above.
    unsafe { memcmp(a, b, count) }
}
