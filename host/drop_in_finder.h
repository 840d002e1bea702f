// The drop-in finder: serves pyhost's own packages in place of the standard library's.
//
// `multiprocessing`, `concurrent.futures.process` (with its private helpers) and `pyhost` come from pyhost's modules
// folder (modules_dir.h); everything else, the submodules of those packages included, is found by Python's own
// finders.  sys.path is not involved, so the finder works under -I, -S, -E and -P alike, and nothing on sys.path can shadow it.
//
// It stands on sys.meta_path right before Python's PathFinder, in every interpreter of the process, from before
// `site` runs.  Python has no public hook at that point, but its own start has one fixed step there: importlib
// imports the built-in module `posix` just before it appends PathFinder.  So the table of built-in modules
// names a function of ours for `posix`, which gives the original's definition one more step: install the finder.
// (The private multi-phase initialisation would do too, but not for subinterpreters, and 3.14.0 lacks it.)

#ifndef PYHOST_HOST_DROP_IN_FINDER_H_
#define PYHOST_HOST_DROP_IN_FINDER_H_

namespace pyhost::host {

// Makes every interpreter that starts from now on install the finder.  Call once, before Python is initialised
// and after the last PyImport_AppendInittab.
void InstallDropInFinder();

}  // namespace pyhost::host

#endif  // PYHOST_HOST_DROP_IN_FINDER_H_
