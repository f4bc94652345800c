"""How a picture is classified in each language: all that differs from one to the next.

`snippets` fills in `$side` and the like.  `$scale` and `$zero` are the input's in `feed`, where the
zero point is added, and the output's in `read`, where it is taken away.
"""

from collections.abc import Mapping
from dataclasses import dataclass

# Of an input: the pixel itself (int8: less 128), or normalized, or that quantized.
PIXEL = {"int8": "int8 pixel", "uint8": "uint8 pixel", "float32": "float32 pixel"}
NORMALIZED, QUANTIZED = "normalized", "quantized"


@dataclass(frozen=True)
class Language:
    """A language, and what its code is put together from.

    Attributes:
      name: For people.
      fence: For Markdown.
      needs: What the code needs, and what is to be known of it; Markdown.
      types: Dtype -> the language's type; empty where the code names none.
      number: A float32 number.
      statistics: The declaration of `$name`, which holds three `$values`.
      order: "rgb" or "bgr" -> how the network's channel is found in the picture.
      feed: Kind of input -> how a value gets into it.
      read: Dtype -> what the output's value with some index stands for.
      code: The whole.
    """

    name: str
    fence: str
    needs: str
    types: Mapping[str, str]
    number: str
    statistics: str
    order: Mapping[str, str]
    feed: Mapping[str, str]
    read: Mapping[str, str]
    code: str


KOTLIN = Language(
    name="Kotlin",
    fence="kotlin",
    needs='`implementation("com.google.ai.edge.litert:litert:2.3.0")`, whose `Interpreter` kept '
    "TensorFlow Lite's package.",
    types={},
    number="${digits}f",
    statistics="    private val $name = floatArrayOf($values)\n",
    order={"rgb": "16 - 8 * channel", "bgr": "8 * channel"},
    feed={
        "int8 pixel": "input.put((value - 128).toByte())",
        "uint8 pixel": "input.put(value.toByte())",
        "float32 pixel": "input.putFloat(value.toFloat())",
        NORMALIZED: "input.putFloat((value - mean[channel]) / std[channel])",
        QUANTIZED: "val step = (value - mean[channel]) / std[channel] / $scale$zero + $half\n"
        "                input.put(kotlin.math.floor(step).toInt().coerceIn($low, $high).toByte())",
    },
    read={
        "int8": "(output.get(it)$zero) * $scale",
        "uint8": "((output.get(it).toInt() and 255)$zero) * $scale",
        "float32": "output.getFloat(4 * it)",
    },
    code="""\
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Interpreter

/** Runs model.tflite, whose bytes are given. Not for two threads at a time. */
class Classifier(model: ByteArray) : AutoCloseable {
${statistics}    private val interpreter = Interpreter(direct(model.size).put(model))

    /** The $classes $name of $side x $side pixels, as Bitmap.getPixels gives them. */
    fun classify(argb: IntArray): FloatArray {
        val input = direct($input_bytes)
        for (pixel in argb) {
            for (channel in 0..2) {
                val value = (pixel shr ($order)) and 255
                $feed
            }
        }
        val output = direct($output_bytes)
        interpreter.run(input, output)
        return FloatArray($classes) { $read }
    }

    override fun close() = interpreter.close()

    private fun direct(size: Int) = ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder())
}

// val classifier = Classifier(assets.open("model.tflite").use { it.readBytes() })
// val argb = IntArray($side * $side).also { bitmap.getPixels(it, 0, $side, 0, 0, $side, $side) }
// val $name = classifier.classify(argb)
// val best = $name.indices.maxBy { $name[it] }
""",
)
JAVA = Language(
    name="Java",
    fence="java",
    needs="The same library as Kotlin's.",
    types={},
    number="${digits}f",
    statistics="    private final float[] $name = {$values};\n",
    order=KOTLIN.order,
    feed={
        "int8 pixel": "input.put((byte) (value - 128));",
        "uint8 pixel": "input.put((byte) value);",
        "float32 pixel": "input.putFloat(value);",
        NORMALIZED: "input.putFloat((value - mean[channel]) / std[channel]);",
        QUANTIZED: "float step = (value - mean[channel]) / std[channel] / $scale$zero + $half;\n"
        "                input.put((byte) Math.max($low, Math.min($high, Math.floor(step))));",
    },
    read={
        "int8": "(output.get(i)$zero) * $scale",
        "uint8": "((output.get(i) & 255)$zero) * $scale",
        "float32": "output.getFloat(4 * i)",
    },
    code="""\
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.tensorflow.lite.Interpreter;

/** Runs model.tflite, whose bytes are given. Not for two threads at a time. */
public final class Classifier implements AutoCloseable {
${statistics}    private final Interpreter interpreter;

    public Classifier(byte[] model) {
        interpreter = new Interpreter(direct(model.length).put(model));
    }

    /** The $classes $name of $side x $side pixels, as Bitmap.getPixels gives them. */
    public float[] classify(int[] argb) {
        ByteBuffer input = direct($input_bytes);
        for (int pixel : argb) {
            for (int channel = 0; channel < 3; channel++) {
                int value = (pixel >> ($order)) & 255;
                $feed
            }
        }
        ByteBuffer output = direct($output_bytes);
        interpreter.run(input, output);
        float[] $name = new float[$classes];
        for (int i = 0; i < $name.length; i++) {
            $name[i] = $read;
        }
        return $name;
    }

    @Override
    public void close() {
        interpreter.close();
    }

    private static ByteBuffer direct(int size) {
        return ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder());
    }
}
""",
)
SWIFT = Language(
    name="Swift",
    fence="swift",
    needs="`pod 'TensorFlowLiteC'`, the C library under TensorFlowLiteSwift, whose `Interpreter` "
    "refuses int8 tensors. These lines were never compiled: read them twice.",
    types={"int8": "Int8", "uint8": "UInt8", "float32": "Float"},
    number="$digits",
    statistics="  private let $name: [Float] = [$values]\n",
    order={"rgb": "rgb[i]", "bgr": "rgb[i + 2 - 2 * channel]"},
    feed={
        "int8 pixel": "input[i] = Int8(Int(value) - 128)",
        "uint8 pixel": "input[i] = value",
        "float32 pixel": "input[i] = Float(value)",
        NORMALIZED: "input[i] = (Float(value) - mean[channel]) / std[channel]",
        QUANTIZED: "let step = (Float(value) - mean[channel]) / std[channel] / $scale$zero + $half"
        "\n      input[i] = $input_type(max($low, min($high, step.rounded(.down))))",
    },
    read={
        "int8": "Float(Int($$0)$zero) * $scale",
        "uint8": "Float(Int($$0)$zero) * $scale",
        "float32": "$$0",
    },
    code="""\
import TensorFlowLiteC

/// Runs model.tflite. Not for two threads at a time.
final class Classifier {
${statistics}  private let model: OpaquePointer
  private let interpreter: OpaquePointer

  init?(path: String) {
    guard let model = TfLiteModelCreateFromFile(path),
      let interpreter = TfLiteInterpreterCreate(model, nil),
      TfLiteInterpreterAllocateTensors(interpreter) == kTfLiteOk
    else { return nil }
    self.model = model
    self.interpreter = interpreter
  }

  deinit {
    TfLiteInterpreterDelete(interpreter)
    TfLiteModelDelete(model)
  }

  /// The $classes $name of $side x $side pixels, each red, green and blue; nil: it did not run.
  func classify(rgb: [UInt8]) -> [Float]? {
    var input = [$input_type](repeating: 0, count: $side * $side * 3)
    for i in input.indices {
      let channel = i % 3
      let value = $order
      $feed
    }
    var output = [$output_type](repeating: 0, count: $classes)
    guard
      TfLiteTensorCopyFromBuffer(
        TfLiteInterpreterGetInputTensor(interpreter, 0), input, $input_bytes) == kTfLiteOk,
      TfLiteInterpreterInvoke(interpreter) == kTfLiteOk,
      TfLiteTensorCopyToBuffer(
        TfLiteInterpreterGetOutputTensor(interpreter, 0), &output, $output_bytes) == kTfLiteOk
    else { return nil }
    return output.map { $read }
  }
}

// let path = Bundle.main.path(forResource: "model", ofType: "tflite")!
// let $name = Classifier(path: path)!.classify(rgb: rgb)!
// let best = $name.indices.max { $name[$$0] < $name[$$1] }!
""",
)
CPP = Language(
    name="C++",
    fence="cpp",
    needs="LiteRT's `tflite` library; where it is TensorFlow's, the headers are in "
    "`tensorflow/lite/`.",
    types={"int8": "std::int8_t", "uint8": "std::uint8_t", "float32": "float"},
    number="${digits}f",
    statistics="    const float ${name}s[] = {$values};\n",
    order={"rgb": "channel", "bgr": "2 - channel"},
    feed={
        "int8 pixel": "*input++ = static_cast<std::int8_t>(value - 128);",
        "uint8 pixel": "*input++ = static_cast<std::uint8_t>(value);",
        "float32 pixel": "*input++ = static_cast<float>(value);",
        NORMALIZED: "*input++ = (value - means[channel]) / stds[channel];",
        QUANTIZED: "const float step = (value - means[channel]) / stds[channel] / $scale$zero + "
        "$half;\n        *input++ = static_cast<$input_type>("
        "std::max($low.0f, std::min($high.0f, std::floor(step))));",
    },
    read={
        "int8": "(output[i]$zero) * $scale",
        "uint8": "(output[i]$zero) * $scale",
        "float32": "output[i]",
    },
    code="""\
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "tflite/interpreter.h"
#include "tflite/kernels/register.h"
#include "tflite/model.h"

// Runs model.tflite. Not for two threads at a time.
class Classifier {
 public:
  bool load(const char* path) {
    model_ = tflite::FlatBufferModel::BuildFromFile(path);
    tflite::ops::builtin::BuiltinOpResolver resolver;
    return model_ && tflite::InterpreterBuilder(*model_, resolver)(&interpreter_) == kTfLiteOk &&
           interpreter_->AllocateTensors() == kTfLiteOk;
  }

  // The $classes $name of $side x $side pixels, each red, green and blue; empty: it did not run.
  std::vector<float> classify(const std::uint8_t* rgb) {
${statistics}    auto* input = interpreter_->typed_input_tensor<$input_type>(0);
    for (int pixel = 0; pixel < $side * $side; ++pixel) {
      for (int channel = 0; channel < 3; ++channel) {
        const int value = rgb[3 * pixel + $order];
        $feed
      }
    }
    if (interpreter_->Invoke() != kTfLiteOk) return {};
    const auto* output = interpreter_->typed_output_tensor<$output_type>(0);
    std::vector<float> $name($classes);
    for (int i = 0; i < $classes; ++i) $name[i] = $read;
    return $name;
  }

 private:
  std::unique_ptr<tflite::FlatBufferModel> model_;  // outlives the interpreter
  std::unique_ptr<tflite::Interpreter> interpreter_;
};
""",
)
PYTHON = Language(
    name="Python",
    fence="python",
    needs="`pip install ai-edge-litert numpy pillow`, then, in this folder: `python classify.py "
    "PICTURE`. These lines resize opaque pictures as those of this page's figures were.",
    types={"int8": "np.int8", "uint8": "np.uint8", "float32": "np.float32"},
    number="$digits",
    statistics="$name = np.array([$values], np.float32)\n",
    order={"rgb": "", "bgr": "[..., ::-1]"},
    feed={
        "int8 pixel": "stored = (pixels.astype(np.int16) - 128).astype(np.int8)",
        "uint8 pixel": "stored = pixels",
        "float32 pixel": "stored = pixels.astype(np.float32)",
        NORMALIZED: "stored = (pixels - mean) / std",
        QUANTIZED: "steps = (pixels - mean) / std / np.float32($scale)$zero + np.float32($half)\n"
        "stored = np.floor(steps).clip($low, $high).astype($input_type)",
    },
    read={
        "int8": "(output.astype(np.float32)$zero) * np.float32($scale)",
        "uint8": "(output.astype(np.float32)$zero) * np.float32($scale)",
        "float32": "output",
    },
    code="""\
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

picture = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("RGB")
resized = [$shorter * length // min(picture.size) for length in picture.size]
first = [round((length - $side) / 2) for length in resized]  # of the pixels that are kept
box = [
    (start + at) * length / whole
    for at in (0, $side)
    for start, length, whole in zip(first, picture.size, resized)
]
kept = picture.resize(($side, $side), Image.Resampling.$filter, box=box)
pixels = np.asarray(kept)$order
${statistics}$feed

model = Interpreter("model.tflite")
model.allocate_tensors()
model.set_tensor(model.get_input_details()[0]["index"], stored[None])
model.invoke()
output = model.get_tensor(model.get_output_details()[0]["index"])[0]
$name = $read
best = $name.argmax()
print(best, $name[best])
""",
)
LANGUAGES = (KOTLIN, JAVA, SWIFT, CPP, PYTHON)
