#include "runtime/base/long_wait.h"

namespace pyhost {
namespace {

LongWaitHooks the_hooks;

}  // namespace

void SetLongWaitHooks(LongWaitHooks hooks) { the_hooks = hooks; }

LongWait::LongWait() {
  if (the_hooks.begin != nullptr) given_ = the_hooks.begin();
}

LongWait::~LongWait() {
  if (given_ != nullptr) the_hooks.end(given_);
}

}  // namespace pyhost
