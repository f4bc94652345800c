package org.shufflelite.app

import android.content.ContentResolver
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.media.ExifInterface
import android.net.Uri
import java.io.IOException
import kotlin.math.max

private const val SHOWN_SIDE = 1024 // pixels; a larger bitmap may not be drawn
private const val OPAQUE = 0xff shl 24

/**
 * Decodes a photo at its full size.
 *
 * @throws IOException It cannot be read, or Android cannot decode it.
 */
fun readPhoto(resolver: ContentResolver, uri: Uri): Picture {
    fun open() = resolver.openInputStream(uri) ?: throw IOException("cannot open $uri")
    val options = BitmapFactory.Options().apply { inPremultiplied = false }
    val bitmap = open().use { BitmapFactory.decodeStream(it, null, options) }
        ?: throw IOException("cannot decode $uri")
    val orientation = try {
        open().use { ExifInterface(it) }
            .getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)
    } catch (_: IOException) {
        ExifInterface.ORIENTATION_NORMAL // a format without EXIF
    }
    val (width, height) = bitmap.width to bitmap.height
    val argb = IntArray(width * height)
    bitmap.getPixels(argb, 0, width, 0, 0, width, height)
    bitmap.recycle()
    return Picture.of(argb, width, height, orientation)
}

/** A small bitmap for the screen, without filtering. */
fun thumbnail(picture: Picture): Bitmap {
    val step = max(picture.width, picture.height) / SHOWN_SIDE + 1
    val (width, height) = max(1, picture.width / step) to max(1, picture.height / step)
    val argb = IntArray(width * height) {
        OPAQUE or picture.rgb(it % width * step, it / width * step)
    }
    return Bitmap.createBitmap(argb, width, height, Bitmap.Config.ARGB_8888)
}
