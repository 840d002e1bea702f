// The program as a session's supervisor: no interpreter, one thread (runtime/supervision/supervisor.h).

#ifndef PYHOST_HOST_SUPERVISOR_MAIN_H_
#define PYHOST_HOST_SUPERVISOR_MAIN_H_

namespace pyhost::host {

int SupervisorMain(int argc, char** argv);

}  // namespace pyhost::host

#endif  // PYHOST_HOST_SUPERVISOR_MAIN_H_
