// Child processes for tests: a lambda forked off, whose body stands right where the test starts it.
//
//   EXPECT_EQ(RunInChild([&] { queue.Push("x"); }), Exited(0));
//   EXPECT_EQ(RunInChild([&] { KillAtCrashPoint("queue-push-before-commit"); queue.Push("x"); }), Killed(SIGKILL));
//
// In the child a failed expectation (EXPECT_*, ASSERT_*) makes the exit code 1.  The child leaves by _exit, so that
// destructors of the test do not run twice.  Not for use while other threads of the test run.

#ifndef PYHOST_RUNTIME_TESTING_CHILD_H_
#define PYHOST_RUNTIME_TESTING_CHILD_H_

#include <sys/types.h>

#include <functional>
#include <ostream>
#include <string_view>

namespace pyhost::testing {

struct ChildEnd {
  bool killed = false;
  int value = 0;  // exit code, or signal
  friend bool operator==(const ChildEnd&, const ChildEnd&) = default;
};
std::ostream& operator<<(std::ostream& out, const ChildEnd& end);
inline ChildEnd Exited(int code) { return {false, code}; }
inline ChildEnd Killed(int signal) { return {true, signal}; }

ChildEnd RunInChild(const std::function<void()>& body);

// A child that runs beside the test.  Killed and reaped by the destructor if it was not before.
class Child {
 public:
  explicit Child(const std::function<void()>& body);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  void Signal(int signal);
  ChildEnd Reap();  // waits
  // SIGKILL and Reap.
  ChildEnd Kill();

 private:
  pid_t pid_;
  bool reaped_ = false;
};

// Arms the crash point in this process.  Skips nothing: the build of the tests has crash points
// (kCrashPointsBuilt), and a test that needs them says so with GTEST_SKIP otherwise.
void KillAtCrashPoint(std::string_view name, int nth = 1);
#ifdef PYHOST_CRASH_POINTS
inline constexpr bool kCrashPointsBuilt = true;
#else
inline constexpr bool kCrashPointsBuilt = false;
#endif

}  // namespace pyhost::testing

#endif  // PYHOST_RUNTIME_TESTING_CHILD_H_
