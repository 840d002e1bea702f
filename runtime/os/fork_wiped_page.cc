#include "runtime/os/fork_wiped_page.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/base/status_util.h"

namespace pyhost {

absl::StatusOr<std::unique_ptr<ForkWipedPage>> ForkWipedPage::Create() {
  const size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return ErrnoStatus(errno, "mmap of the page wiped on fork");
  std::unique_ptr<ForkWipedPage> page(new ForkWipedPage(static_cast<std::byte*>(memory), size));
  if (madvise(memory, size, MADV_WIPEONFORK) != 0) {
    return ErrnoStatus(errno, "madvise MADV_WIPEONFORK");
  }
  return page;
}

ForkWipedPage::~ForkWipedPage() { munmap(data_, size_); }

}  // namespace pyhost
