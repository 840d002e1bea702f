#include "runtime/base/crash_point.h"

#include <signal.h>
#include <unistd.h>

#include <string>

namespace pyhost::crash_point {
namespace {

struct Armed {
  std::string name;  // empty: nothing is armed
  int arrivals_left = 0;
  int signal = SIGKILL;
};

Armed& TheArmed() {
  static Armed* armed = new Armed;  // never destroyed: points are reached during exit too
  return *armed;
}

}  // namespace

void Arm(std::string_view name, int nth, int signal) {
  TheArmed() = {.name = std::string(name), .arrivals_left = nth, .signal = signal};
}

void Disarm() { TheArmed().name.clear(); }

void Reached(const char* name) {
  Armed& armed = TheArmed();
  if (armed.name.empty() || armed.name != name || --armed.arrivals_left > 0) return;
  const int signal = armed.signal;
  Disarm();
  kill(getpid(), signal);
  while (signal == SIGKILL) pause();  // it is on its way to this thread
}

}  // namespace pyhost::crash_point
