package org.shufflelite.app

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.exp
import kotlin.math.floor

/** A class, and its probability, 0 to 1. */
class Answer(val index: Int, val score: Double)

/** Converts [rgb] to the input: normalized and, for integer inputs, quantized. */
fun toInput(rgb: ByteArray, network: Network): ByteBuffer {
    val input = buffer(rgb.size, network.input)
    val normalized = (0..2).map { place ->
        FloatArray(256) { (it - network.mean[place]) / network.std[place] }
    }
    val stored = normalized.map { values ->
        ByteArray(256) { quantize(values[it], network.input) }
    }
    for (index in rgb.indices) {
        val place = index % 3
        val channel = if (network.blueFirst) 2 - place else place
        val value = rgb[index - place + channel].toInt() and 255
        if (network.input.type == Tensor.Type.FLOAT32) {
            input.putFloat(4 * index, normalized[place][value])
        } else {
            input.put(index, stored[place][value])
        }
    }
    return input
}

/** An empty buffer for the output. */
fun emptyOutput(network: Network): ByteBuffer = buffer(network.classes, network.output)

/** The [count] most probable classes; ties keep the order of the classes. */
fun best(output: ByteBuffer, network: Network, count: Int): List<Answer> {
    val values = List(network.classes) { value(output, it, network.output) }
    val scores = if (network.givesScores) values.map { it.toDouble() } else softmax(values)
    return values.indices.sortedByDescending { values[it] }.take(count)
        .map { Answer(it, scores[it]) }
}

private fun softmax(logits: List<Float>): List<Double> {
    val greatest = logits.max()
    val powers = logits.map { exp((it - greatest).toDouble()) }
    val sum = powers.sum()
    return powers.map { it / sum }
}

private fun buffer(count: Int, tensor: Tensor) =
    ByteBuffer.allocateDirect(count * tensor.type.bytes).order(ByteOrder.nativeOrder())

/** Rounds to the nearest step, ties down: with a mean of 127.5, pixels lie halfway. */
private fun quantize(value: Float, tensor: Tensor): Byte {
    val step = floor(value / tensor.scale + tensor.zeroPoint + 0.499f)
    return when (tensor.type) {
        Tensor.Type.INT8 -> step.toInt().coerceIn(-128, 127).toByte()
        Tensor.Type.UINT8 -> step.toInt().coerceIn(0, 255).toByte()
        Tensor.Type.FLOAT32 -> 0 // stored as it is
    }
}

private fun value(stored: ByteBuffer, index: Int, tensor: Tensor) = when (tensor.type) {
    Tensor.Type.INT8 -> (stored.get(index).toInt() - tensor.zeroPoint) * tensor.scale
    Tensor.Type.UINT8 -> ((stored.get(index).toInt() and 255) - tensor.zeroPoint) * tensor.scale
    Tensor.Type.FLOAT32 -> stored.getFloat(4 * index)
}
