// The program as a fork server: an interpreter that is up and waits, on one thread, to be forked for each start.
//
// For method spawn it is pristine: nothing of the user's has run.  For forkserver it has imported what
// set_forkserver_preload() named, and the main module.  A preload that leaves threads behind makes a server that
// refuses every start and says which module it was: a fork would lose those threads.
//
// Life: join the session, start the interpreter, import, then: a start request -> fork -> tell the supervisor; a child
// ended -> write its exit word; the supervisor's socket ended -> end.

#ifndef PYHOST_HOST_FORK_SERVER_H_
#define PYHOST_HOST_FORK_SERVER_H_

namespace pyhost::host {

// The internal mode `server`.
int ForkServerMain(int argc, char** argv);

}  // namespace pyhost::host

#endif  // PYHOST_HOST_FORK_SERVER_H_
