#include "host/supervisor_main.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <memory>
#include <utility>

#include "host/internal_arguments.h"
#include "host/process_title.h"
#include "runtime/os/launcher.h"
#include "runtime/session/session.h"
#include "runtime/supervision/supervisor.h"

namespace pyhost::host {
namespace {

// What the terminal sends to everybody, and a kill of the whole group: the supervisor ends when nobody needs it.
void IgnoreGroupSignals() {
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2}) ::signal(signal, SIG_IGN);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// Keeps no file of the program's open: whoever reads its output waits for the end of file.
void LeaveStandardStreams() {
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd <= 2 && null >= 0; ++fd) dup2(null, fd);
  if (null > 2) close(null);
}

// Two descriptors a host.
void RaiseDescriptorLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

int SupervisorMain(int argc, char** argv) {
  FillStandardStreams();
  absl::StatusOr<SessionTicket> ticket = SessionTicket::FromArguments(argc, argv);
  if (!ticket.ok()) return ReportInternalError("supervisor", ticket.status());
  UniqueFd control = TakeDescriptorArgument(argc, argv, "supervisor-end");
  IgnoreGroupSignals();
  KeepCommandLine(argc, argv);
  SetProcessTitle("pyhost-supervisor");
  ArmCrashPoint("supervisor");
  // A host that lost its descriptors takes them from us; where only ancestors may look at a process (Yama), it is let.
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
  std::unique_ptr<Launcher> launcher = NewProcessLauncher();
  absl::StatusOr<std::unique_ptr<Supervisor>> supervisor =
      Supervisor::Create(*ticket, std::move(control), launcher.get());
  if (!supervisor.ok()) return ReportInternalError("supervisor", supervisor.status());
  LeaveStandardStreams();
  RaiseDescriptorLimit();
  return (*supervisor)->Run().ok() ? 0 : 1;
}

}  // namespace pyhost::host
