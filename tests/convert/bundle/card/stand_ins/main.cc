// Runs case0::Classifier and so on; argv: the folder with their files.
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "cases.h"
#include "tflite/interpreter.h"

std::vector<char> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <typename T>
void write(const std::string& path, const std::vector<T>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

template <typename Classifier>
bool run(const std::string& place, const char* source, const char* result, int input_bytes) {
  tflite::source = {source, std::vector<char>(input_bytes)};
  tflite::result = {result, read(place + ".output")};
  const std::vector<char> rgb = read(place.substr(0, place.rfind('/')) + "/rgb");
  Classifier classifier;
  if (classifier.load("nothing") || !classifier.load("model.tflite")) return false;
  write(place + ".values", classifier.classify(reinterpret_cast<const std::uint8_t*>(rgb.data())));
  write(place + ".input", tflite::source.bytes);
  return true;
}

int main(int, char** argv) {
  const std::string folder = std::string(argv[1]) + "/";
  return RUN_ALL ? 0 : 1;
}
