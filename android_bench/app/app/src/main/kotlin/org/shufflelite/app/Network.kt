package org.shufflelite.app

import java.io.Reader
import java.util.Properties

/** The file that `convert` writes beside the model: all that the app knows about the network. */
const val NETWORK_FILE = "network.properties"

/** How a picture becomes the input of a network, and what its input and output values mean. */
class Network(
    val name: String,
    val modelSha256: String,
    val side: Int, // height and width of the input in pixels
    val classes: Int,
    val cropFraction: Double,
    val bicubic: Boolean, // else bilinear
    val blueFirst: Boolean, // the order of its channels
    val mean: List<Float>, // of each channel in its order, in pixel units
    val std: List<Float>,
    val givesScores: Boolean, // probabilities, else logits
    val input: Tensor,
    val output: Tensor,
)

/** A stored value means (value - [zeroPoint]) * [scale]; a float means itself. */
class Tensor(val type: Type, val scale: Float, val zeroPoint: Int) {
    enum class Type(val bytes: Int) { INT8(1), UINT8(1), FLOAT32(4) }
}

/** Reads [NETWORK_FILE]. */
fun readNetwork(reader: Reader): Network {
    val all = Properties().apply { load(reader) }
    fun text(key: String) =
        requireNotNull(all.getProperty(key)) { "$NETWORK_FILE has no $key: convert again" }
    fun numbers(key: String) = text(key).split(",").map { it.toDouble().toFloat() }
    fun tensor(name: String) = Tensor(
        type = Tensor.Type.valueOf(text("$name.type").uppercase()),
        scale = text("$name.scale").toDouble().toFloat(),
        zeroPoint = text("$name.zero_point").toInt(),
    )
    return Network(
        name = text("name"),
        modelSha256 = text("model_sha256"),
        side = text("side").toInt(),
        classes = text("classes").toInt(),
        cropFraction = text("crop_fraction").toDouble(),
        bicubic = text("interpolation") == "bicubic",
        blueFirst = text("channel_order") == "bgr",
        mean = numbers("mean"),
        std = numbers("std"),
        givesScores = text("gives_scores").toBoolean(),
        input = tensor("input"),
        output = tensor("output"),
    )
}
