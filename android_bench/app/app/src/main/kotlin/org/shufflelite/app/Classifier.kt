package org.shufflelite.app

import android.content.res.AssetManager
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Interpreter

private const val FOLDER = "bundle" // in the assets

/** Runs the bundle's network on the CPU with XNNPACK. Not thread-safe. */
class Classifier(assets: AssetManager, threads: Int) : AutoCloseable {
    val network: Network = assets.open("$FOLDER/$NETWORK_FILE").reader().use(::readNetwork)

    private val labels: List<String> =
        if ("labels.txt" in assets.list(FOLDER).orEmpty()) {
            assets.open("$FOLDER/labels.txt").reader().useLines { it.toList() }
        } else {
            emptyList()
        }

    private val interpreter: Interpreter

    init {
        val model = assets.open("$FOLDER/model.tflite").use { it.readBytes() }
        val direct = ByteBuffer.allocateDirect(model.size).order(ByteOrder.nativeOrder())
        direct.put(model)
        val options = Interpreter.Options().setNumThreads(threads).setUseXNNPACK(true)
        interpreter = Interpreter(direct, options)
    }

    /** Returns the most probable classes, and the time of the inference in nanoseconds. */
    fun classify(picture: Picture, count: Int): Pair<List<Answer>, Long> {
        val input = toInput(resizeAndCrop(picture, network), network)
        val output = emptyOutput(network)
        val start = System.nanoTime()
        interpreter.run(input, output)
        val took = System.nanoTime() - start
        return best(output, network, count) to took
    }

    /** The class's name, or its number if the bundle has no names. */
    fun label(answer: Answer): String = labels.getOrElse(answer.index) { "class ${answer.index}" }

    override fun close() = interpreter.close()
}
