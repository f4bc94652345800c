// Records its input and returns the output that was set.
#pragma once

#include <memory>
#include <string>
#include <type_traits>
#include <vector>

enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };

namespace tflite {

struct End {
  std::string dtype;
  std::vector<char> bytes;
};
inline End source;
inline End result;

class Interpreter {
 public:
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteStatus Invoke() { return kTfLiteOk; }

  template <typename T>
  T* typed_input_tensor(int index) {
    return typed<T>(source, index);
  }

  template <typename T>
  T* typed_output_tensor(int index) {
    return typed<T>(result, index);
  }

 private:
  template <typename T>
  T* typed(End& end, int index) {
    const char* dtype = std::is_same_v<T, signed char>     ? "int8"
                        : std::is_same_v<T, unsigned char> ? "uint8"
                        : std::is_same_v<T, float>         ? "float32"
                                                           : "";
    return index == 0 && end.dtype == dtype ? reinterpret_cast<T*>(end.bytes.data()) : nullptr;
  }
};

struct FlatBufferModel {
  static std::unique_ptr<FlatBufferModel> BuildFromFile(const char* path) {
    return std::string(path) == "model.tflite" ? std::make_unique<FlatBufferModel>() : nullptr;
  }
};

namespace ops::builtin {
class BuiltinOpResolver {};
}  // namespace ops::builtin

class InterpreterBuilder {
 public:
  InterpreterBuilder(const FlatBufferModel&, const ops::builtin::BuiltinOpResolver&) {}

  TfLiteStatus operator()(std::unique_ptr<Interpreter>* interpreter) {
    *interpreter = std::make_unique<Interpreter>();
    return kTfLiteOk;
  }
};

}  // namespace tflite
