// LongWait: what a process wants done around a wait that was meant to be short and is not.
//
// Locks of shared structures are held for well under a microsecond, so who waits for one keeps whatever it has: in Python's
// processes the GIL.  A holder that is stopped (SIGSTOP, a debugger) makes that wait long, and who could continue the holder may
// be a Python thread of the waiting process.  So after its first patience a waiter makes a LongWait, and the hooks of an
// embedded interpreter give the GIL up for its duration.  So does who finds a mutex taken (mutex_lock.h): its owner may be such a
// waiter.
//
// So nobody is blocked with the GIL in its hands.  That is why it may be taken back by who holds a mutex: whoever has it comes
// to give it up, also when what it wants is that mutex.
//
// SetLongWaitHooks: once, before threads wait.  The hooks run in the thread that waits.

#ifndef PYHOST_RUNTIME_BASE_LONG_WAIT_H_
#define PYHOST_RUNTIME_BASE_LONG_WAIT_H_

namespace pyhost {

struct LongWaitHooks {
  void* (*begin)() = nullptr;       // gives up what others may need; the result is for `end`
  void (*end)(void* given) = nullptr;  // takes it back; not called when `begin` returned null
};

void SetLongWaitHooks(LongWaitHooks hooks);

class [[nodiscard]] LongWait {
 public:
  LongWait();
  ~LongWait();
  LongWait(const LongWait&) = delete;
  LongWait& operator=(const LongWait&) = delete;

 private:
  void* given_ = nullptr;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BASE_LONG_WAIT_H_
