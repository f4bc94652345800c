package org.shufflelite.app

/**
 * An upright view of stored pixels, without copying them: its pixel (x, y) is
 * `argb[first + x * right + y * down]`.
 */
class Picture private constructor(
    private val argb: IntArray,
    val width: Int,
    val height: Int,
    private val first: Int,
    private val right: Int,
    private val down: Int,
) {
    /** The pixel's red, green and blue, 0xRRGGBB; transparent areas are on white. */
    fun rgb(x: Int, y: Int): Int {
        val pixel = argb[first + x * right + y * down]
        val alpha = pixel ushr 24
        if (alpha == OPAQUE) return pixel and 0xffffff
        return (onWhite(pixel shr 16 and 255, alpha) shl 16) or
            (onWhite(pixel shr 8 and 255, alpha) shl 8) or
            onWhite(pixel and 255, alpha)
    }

    /** Swaps rows and columns. */
    fun transposed() = Picture(argb, height, width, first, right = down, down = right)

    companion object {
        private const val OPAQUE = 255

        /**
         * Makes a picture from stored pixels.
         *
         * @param argb Row by row, not premultiplied by alpha.
         * @param orientation EXIF: 1 as stored, 6 turned right, and so on; unknown ones mean 1.
         */
        fun of(argb: IntArray, width: Int, height: Int, orientation: Int): Picture {
            val mirrored = orientation in listOf(2, 3, 7, 8) // right to left, in stored rows
            val upsideDown = orientation in listOf(3, 4, 6, 7)
            val column = if (mirrored) width - 1 else 0
            val first = column + (if (upsideDown) (height - 1) * width else 0)
            val alongRow = if (mirrored) -1 else 1
            val alongColumn = if (upsideDown) -width else width
            return if (orientation in 5..8) { // rows are seen as columns
                Picture(argb, height, width, first, right = alongColumn, down = alongRow)
            } else {
                Picture(argb, width, height, first, right = alongRow, down = alongColumn)
            }
        }

        /** Pillow's rounding of `alpha_composite` onto white. */
        private fun onWhite(value: Int, alpha: Int): Int {
            val sum = (value * alpha + 255 * (255 - alpha) + 128) shl 7
            return (((sum shr 8) + sum) shr 8) shr 7
        }
    }
}
