#include "runtime/values/utf8.h"

#include <cstdint>
#include <cstring>

#include "absl/strings/escaping.h"
#include "runtime/values/absl_text.h"

namespace pyhost {
namespace {

size_t SkipAscii(std::string_view text, size_t at) {
  constexpr uint64_t kHighBits = 0x8080808080808080;
  for (uint64_t eight = 0; at + sizeof(eight) <= text.size(); at += sizeof(eight)) {
    std::memcpy(&eight, text.data() + at, sizeof(eight));
    if ((eight & kHighBits) != 0) break;
  }
  while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) ++at;
  return at;
}

// Bytes of the character that starts here; 0 when there is none.
size_t CharacterSize(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  const size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < size) return 0;
  uint32_t character = lead & (0xff >> (size + 1));
  for (size_t i = 1; i < size; ++i) {
    const auto trail = static_cast<unsigned char>(text[i]);
    if ((trail & 0xc0) != 0x80) return 0;
    character = character << 6 | (trail & 0x3f);
  }
  if (size == 3 && (character < 0x800 || (character >= 0xd800 && character <= 0xdfff))) return 0;
  if (size == 4 && (character < 0x10000 || character > 0x10ffff)) return 0;
  return size;
}

}  // namespace

size_t FirstInvalidUtf8(std::string_view text) {
  for (size_t at = 0;;) {
    at = SkipAscii(text, at);
    if (at == text.size()) return at;
    const size_t size = CharacterSize(text.substr(at));
    if (size == 0) return at;
    at += size;
  }
}

std::string EscapedText(std::string_view text) {
  const bool valid = FirstInvalidUtf8(text) == text.size();
  return valid ? absl::Utf8SafeCHexEscape(AbslText(text)) : absl::CHexEscape(AbslText(text));
}

}  // namespace pyhost
