// UTF-8 as C++ and Python agree on it: shortest forms, no surrogates, at most U+10FFFF.

#ifndef PYHOST_RUNTIME_VALUES_UTF8_H_
#define PYHOST_RUNTIME_VALUES_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace pyhost {

// Where the first byte stands that is no part of valid UTF-8; text.size() when all is well.
size_t FirstInvalidUtf8(std::string_view text);

// The text as a message can show it: unprintable characters, and all but ASCII where it is not valid, as \x...
std::string EscapedText(std::string_view text);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_VALUES_UTF8_H_
