package org.shufflelite.app

import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

private const val FRACTION_BITS = 22 // of a weight: eight bits of pixel and two of sign fit above
private const val HALF = 1 shl (FRACTION_BITS - 1)

/**
 * Resizes the picture's shorter side and crops the center, byte for byte as `convert` does.
 *
 * This is Pillow's resize: the filter widens as the picture shrinks, weights are fixed-point, rows
 * are filtered first and rounded to bytes, then columns; for a tall picture the other way round.
 * Android's own scaling gives other pixels.
 *
 * @return Red, green and blue of each pixel, row by row, [Network.side] by [Network.side].
 */
fun resizeAndCrop(picture: Picture, network: Network): ByteArray {
    val side = network.side
    if (picture.height - side <= max(0, 2 * (picture.width - side))) return resize(picture, network)
    val lying = resize(picture.transposed(), network)
    return ByteArray(lying.size) {
        val pixel = it / 3
        lying[(pixel % side * side + pixel / side) * 3 + it % 3]
    }
}

private fun resize(picture: Picture, network: Network): ByteArray {
    val side = network.side
    val shorter = round(side / network.cropFraction).toLong() // a half goes to the even neighbour
    fun weights(length: Int): List<Weights> {
        val resized = shorter * length / min(picture.width, picture.height)
        val before = round((resized - side) / 2.0).toLong()
        val from = (before * length).toDouble() / resized
        val to = ((before + side) * length).toDouble() / resized
        return weights(length, from.toFloat(), to.toFloat(), side, network.bicubic)
    }
    val columns = weights(picture.width)
    val rows = weights(picture.height)
    val top = rows.first().first
    val bottom = rows.last().run { first + values.size }
    val narrowed = ByteArray((bottom - top) * side * 3)
    for (y in top until bottom) {
        for ((x, weights) in columns.withIndex()) {
            weights.sum(narrowed, ((y - top) * side + x) * 3) { picture.rgb(it, y) }
        }
    }
    val resized = ByteArray(side * side * 3)
    for ((y, weights) in rows.withIndex()) {
        for (x in 0 until side) {
            weights.sum(resized, (y * side + x) * 3) { rgb(narrowed, ((it - top) * side + x) * 3) }
        }
    }
    return resized
}

/** Weights of the pixels from [first] on in one output pixel, times 2 to the [FRACTION_BITS]. */
private class Weights(val first: Int, val values: IntArray) {
    inline fun sum(into: ByteArray, place: Int, pixel: (Int) -> Int) {
        var red = HALF
        var green = HALF
        var blue = HALF
        for ((index, weight) in values.withIndex()) {
            val rgb = pixel(first + index)
            red += weight * (rgb shr 16)
            green += weight * (rgb shr 8 and 255)
            blue += weight * (rgb and 255)
        }
        into[place] = byte(red)
        into[place + 1] = byte(green)
        into[place + 2] = byte(blue)
    }

    fun byte(sum: Int) = (sum shr FRACTION_BITS).coerceIn(0, 255).toByte()
}

private fun rgb(bytes: ByteArray, place: Int) =
    (bytes[place].toInt() and 255 shl 16) or
        (bytes[place + 1].toInt() and 255 shl 8) or
        (bytes[place + 2].toInt() and 255)

/** The weights that resize the pixels between [from] and [to] of [length] to [count] pixels. */
private fun weights(
    length: Int,
    from: Float,
    to: Float,
    count: Int,
    bicubic: Boolean,
): List<Weights> {
    val scale = (to - from).toDouble() / count
    val stretch = scale.coerceAtLeast(1.0)
    val reach = (if (bicubic) 2.0 else 1.0) * stretch
    return List(count) { index ->
        val centre = from + (index + 0.5) * scale
        val first = (centre - reach + 0.5).toInt().coerceAtLeast(0)
        val end = (centre + reach + 0.5).toInt().coerceAtMost(length)
        val shares = DoubleArray(end - first) {
            val distance = abs((it + first - centre + 0.5) * (1.0 / stretch))
            if (bicubic) cubic(distance) else (1.0 - distance).coerceAtLeast(0.0)
        }
        val sum = shares.sum()
        Weights(first, IntArray(shares.size) { fixed(shares[it] / sum) })
    }
}

private fun fixed(share: Double) =
    ((if (share < 0) -0.5 else 0.5) + share * (1 shl FRACTION_BITS)).toInt()

/** The cubic convolution with a = -0.5. */
private fun cubic(distance: Double) = when {
    distance < 1.0 -> (1.5 * distance - 2.5) * distance * distance + 1.0
    distance < 2.0 -> (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5
    else -> 0.0
}
