package org.shufflelite.app

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.Properties
import kotlin.math.abs
import org.junit.Test

private const val SAME = 1e-5 // parts of a score: the logits are the same bytes

/** Compares the app with the results of `convert` for the bundle in the assets, per picture. */
class VectorsTest {
    private val network = File("src/main/assets/bundle", NETWORK_FILE).reader().use(::readNetwork)
    private val vectors = checkNotNull(File("src/test/vectors").listFiles(File::isDirectory)) {
        "no vectors: make this app with python -m convert --android_app"
    }.sorted()

    @Test
    fun `the vectors are there, and of this network`() {
        check(vectors.isNotEmpty())
        for (vector in vectors) {
            check(expected(vector)("model_sha256") == network.modelSha256) { vector }
        }
    }

    @Test
    fun `a picture becomes the same input, byte for byte`() {
        for (vector in vectors) {
            val told = expected(vector)
            val argb = bytes(vector, "argb").order(ByteOrder.BIG_ENDIAN).asIntBuffer()
            val picture = Picture.of(
                IntArray(argb.remaining()).also(argb::get),
                told("width").toInt(),
                told("height").toInt(),
                told("orientation").toInt(),
            )
            val input = toInput(resizeAndCrop(picture, network), network)
            val same = bytes(vector, "input")
            check(input.remaining() == same.remaining()) { vector }
            val others = (0 until same.remaining()).count { input.get(it) != same.get(it) }
            check(others == 0) { "$vector: $others of ${same.remaining()} bytes differ" }
        }
    }

    @Test
    fun `an output gives the same classes and scores`() {
        for (vector in vectors) {
            val told = expected(vector)
            val classes = told("classes").split(",").map(String::toInt)
            val scores = told("scores").split(",").map(String::toDouble)
            val answers = best(bytes(vector, "output"), network, classes.size)
            check(answers.map { it.index } == classes) { "$vector: ${answers.map { it.index }}" }
            check(answers.zip(scores).all { (answer, score) -> abs(answer.score - score) < SAME }) {
                "$vector: ${answers.map { it.score }}, expected $scores"
            }
        }
    }

    private fun expected(vector: File): (String) -> String {
        val all = Properties()
        File(vector, "expected.properties").reader().use(all::load)
        return { key -> checkNotNull(all.getProperty(key)) { "$vector: no $key" } }
    }

    private fun bytes(vector: File, name: String) =
        ByteBuffer.wrap(File(vector, name).readBytes()).order(ByteOrder.LITTLE_ENDIAN)
}
