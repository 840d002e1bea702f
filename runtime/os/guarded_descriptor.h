// GuardedDescriptor: a descriptor of ours in a process whose program may close it, or use its number for something
// else, at any time (daemons close everything they find).  Every use first asks Intact().
//
// Remembers which file it was; never closes a number that has become somebody else's.  Not thread-safe.

#ifndef PYHOST_RUNTIME_OS_GUARDED_DESCRIPTOR_H_
#define PYHOST_RUNTIME_OS_GUARDED_DESCRIPTOR_H_

#include <sys/types.h>

#include "runtime/os/unique_fd.h"

namespace pyhost {

// Which file a descriptor stands for, whatever its number.  A value.
class FileIdentity {
 public:
  FileIdentity() = default;
  explicit FileIdentity(int fd);
  // Whether `fd` is open and stands for the same file.
  bool Is(int fd) const;

 private:
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

class GuardedDescriptor {
 public:
  GuardedDescriptor() = default;
  // Owns `fd` from now on.
  explicit GuardedDescriptor(UniqueFd fd);
  GuardedDescriptor(GuardedDescriptor&& other) noexcept;
  GuardedDescriptor& operator=(GuardedDescriptor&& other) noexcept;
  ~GuardedDescriptor();

  bool Intact() const;
  int fd() const { return fd_; }
  // When not Intact(): puts a duplicate of the same file in place of the lost one.  False (and nothing changes) when it is another file.
  bool Restore(UniqueFd fd);
  void Close();

 private:
  int fd_ = -1;
  FileIdentity file_;
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_GUARDED_DESCRIPTOR_H_
