//! The child process: libchdb's command line inside this binary.
//!
//! The library is loaded here only, so that a crash in it takes a child and not the pipeline, and so that roles
//! without an engine never map its 566 MB.

use std::{
    ffi::{CStr, CString, OsString, c_char, c_int, c_void},
    io::{self, Write as _},
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use libloading::{Library, Symbol};

use super::sandbox::{self, Need};

/// `chdb_result *chdb_query_cmdline(int argc, char **argv)` of libchdb's `chdb.h`: runs a command line of
/// clickhouse-local to its end.
type QueryCommandLine = unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut c_void;
/// `const char *chdb_result_error(chdb_result *)`: null or empty when all went well.
type ResultError = unsafe extern "C" fn(*mut c_void) -> *const c_char;

/// Runs the hidden subcommand and never comes back: `engine NEED LIBRARY WRITABLE_DIR… -- ARGS…`.
///
/// Call it before any thread is started: the sandbox binds the calling thread and those that it starts.
pub fn engine_main(args: impl IntoIterator<Item = OsString>) -> ! {
    let code = match run(args.into_iter().collect()) {
        Ok(()) => 0,
        Err(problem) => {
            // stderr is a file that the parent reads; if it cannot be written there is nobody left to tell.
            let _ = writeln!(io::stderr(), "{problem}");
            1
        }
    };
    exit_now(code)
}

fn run(args: Vec<OsString>) -> Result<(), String> {
    let mut args = args.into_iter();
    let usage = "usage: engine NEED LIBRARY WRITABLE_DIR… -- ARGS…";
    let need = args.next().and_then(|arg| Need::from_arg(&arg)).ok_or(usage)?;
    let library = PathBuf::from(args.next().ok_or(usage)?);
    let writable: Vec<PathBuf> = args.by_ref().take_while(|arg| arg != "--").map(PathBuf::from).collect();

    sandbox::enter(&library, &writable, need)
        .map_err(|error| format!("cannot close the sandbox: {error}"))?;
    query_command_line(&library, args)
}

#[allow(unsafe_code, reason = "the only way into libchdb is its C interface")]
fn query_command_line(library: &Path, args: impl Iterator<Item = OsString>) -> Result<(), String> {
    let mut owned = vec![CString::from(c"clickhouse")];
    for arg in args {
        owned.push(CString::new(arg.into_vec()).map_err(|_| "an argument contains a NUL byte")?);
    }
    let mut argv: Vec<*mut c_char> = owned.iter().map(|arg| arg.as_ptr().cast_mut()).collect();
    let argc = c_int::try_from(argv.len()).map_err(|_| "too many arguments")?;
    argv.push(std::ptr::null_mut());

    // SAFETY: libchdb is the pinned release, whose two functions have the types above; its initialisers run once,
    // on the only thread. `argv` and the strings behind it outlive the call and are null-terminated as main's are.
    // The result is read once and, like the library, kept until the process ends: both are never freed, because
    // threads of the engine may still hold them.
    unsafe {
        let library = Library::new(library).map_err(|error| format!("cannot load the engine: {error}"))?;
        let library: &'static Library = Box::leak(Box::new(library));
        let query: Symbol<'_, QueryCommandLine> =
            library.get(b"chdb_query_cmdline\0").map_err(|error| format!("not a libchdb: {error}"))?;
        let error_of: Symbol<'_, ResultError> =
            library.get(b"chdb_result_error\0").map_err(|error| format!("not a libchdb: {error}"))?;

        let result = query(argc, argv.as_mut_ptr());
        if result.is_null() {
            return Ok(());
        }
        let error = error_of(result);
        if error.is_null() || CStr::from_ptr(error).is_empty() {
            return Ok(());
        }
        let error = CStr::from_ptr(error).to_string_lossy();
        // The engine was built without symbols: its stack trace is addresses.
        Err(error.split(", Stack trace").next().unwrap_or(&error).to_owned())
    }
}

/// Ends the process without running the library's static destructors under its still living threads. The engine
/// has shut its tables down by itself when its command line returned.
#[allow(unsafe_code, reason = "std::process::exit would run them")]
fn exit_now(code: c_int) -> ! {
    // SAFETY: `_exit` takes any code and has no preconditions.
    unsafe { libc::_exit(code) }
}
