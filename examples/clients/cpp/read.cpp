// Reads faces' expressions with a mien model file and nothing but ONNX Runtime.
//   c++ -std=c++17 -O2 read.cpp $(pkg-config --cflags --libs libonnxruntime) -o read && ./read MODEL.onnx CHIP.ppm ...
// Chips: binary PPM of the model's size, cut by `python chip.py`. Prints one line a chip: label, probabilities, affect.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <regex>

int main(int count, char** words) try {
  if (count < 3) throw std::runtime_error("usage: read MODEL.onnx CHIP.ppm ...");
  Ort::Env env;
  Ort::Session session(env, words[1], Ort::SessionOptions());
  Ort::AllocatorWithDefaultOptions memory;

  // The file says what it is: its labels in its metadata, the chips' size in its input.
  const auto metadata = session.GetModelMetadata().LookupCustomMetadataMapAllocated("mien", memory);
  if (!metadata) throw std::runtime_error(std::string(words[1]) + ": no mien model");
  std::smatch found;
  const std::string spec = metadata.get();
  if (!std::regex_search(spec, found, std::regex("\"labels\":\\s*\\[([^\\]]*)\\]"))) throw std::runtime_error("no labels: is it a detector?");
  const std::string list = found[1];
  const std::regex quoted("\"([^\"]*)\"");
  const std::vector<std::string> labels(std::sregex_token_iterator(list.begin(), list.end(), quoted, 1), {});
  auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();  // (n, 3, height, width)
  shape[0] = count - 2;
  const int64_t plane = shape[2] * shape[3];

  // All there is to preparing: RGB 0..255 as float32, one colour plane after the other.
  std::vector<float> input(shape[0] * 3 * plane);
  for (int64_t n = 0; n < shape[0]; n++) {
    std::ifstream file(words[n + 2], std::ios::binary);
    std::string kind;
    int64_t width = 0, height = 0, most = 0;
    file >> kind >> width >> height >> most;
    std::vector<char> rgb(3 * plane);
    if (kind != "P6" || width != shape[3] || height != shape[2] || most != 255 || !file.get() || !file.read(rgb.data(), 3 * plane))
      throw std::runtime_error(std::string(words[n + 2]) + ": not a binary PPM of the model's size");
    for (int64_t i = 0; i < 3 * plane; i++) input[(3 * n + i % 3) * plane + i / 3] = static_cast<unsigned char>(rgb[i]);
  }

  const char *in[] = {"chips"}, *out[] = {"probabilities", "affect"};
  const auto cpu = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto chips = Ort::Value::CreateTensor<float>(cpu, input.data(), input.size(), shape.data(), shape.size());
  const auto answers = session.Run(Ort::RunOptions(), in, &chips, 1, out, 2);
  for (int64_t n = 0; n < shape[0]; n++) {
    const float* shares = answers[0].GetTensorData<float>() + n * labels.size();
    const float* affect = answers[1].GetTensorData<float>() + 2 * n;
    std::cout << words[n + 2] << " " << labels[std::max_element(shares, shares + labels.size()) - shares];
    for (size_t i = 0; i < labels.size(); i++) std::cout << " " << labels[i] << "=" << shares[i];
    std::cout << " valence=" << affect[0] << " arousal=" << affect[1] << "\n";
  }
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
