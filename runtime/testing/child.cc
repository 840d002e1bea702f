#include "runtime/testing/child.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gtest/gtest.h"
#include "runtime/base/crash_point.h"

namespace pyhost::testing {

std::ostream& operator<<(std::ostream& out, const ChildEnd& end) {
  return out << (end.killed ? "killed by signal " : "exited with code ") << end.value;
}

Child::Child(const std::function<void()>& body) {
  fflush(stdout);
  fflush(stderr);
  pid_ = fork();
  if (pid_ != 0) {
    EXPECT_GT(pid_, 0) << "fork failed";
    return;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that is killed leaves nothing running
  body();
  fflush(stdout);
  fflush(stderr);
  _exit(::testing::Test::HasFailure() ? 1 : 0);
}

Child::~Child() {
  if (!reaped_ && pid_ > 0) Kill();
}

void Child::Signal(int signal) { kill(pid_, signal); }

ChildEnd Child::Reap() {
  int status = 0;
  pid_t reaped;
  do {
    reaped = waitpid(pid_, &status, 0);
  } while (reaped < 0 && errno == EINTR);
  EXPECT_EQ(reaped, pid_);
  reaped_ = true;
  return WIFSIGNALED(status) ? Killed(WTERMSIG(status)) : Exited(WEXITSTATUS(status));
}

ChildEnd Child::Kill() {
  Signal(SIGKILL);
  return Reap();
}

ChildEnd RunInChild(const std::function<void()>& body) { return Child(body).Reap(); }

void KillAtCrashPoint(std::string_view name, int nth) { crash_point::Arm(name, nth); }

}  // namespace pyhost::testing
