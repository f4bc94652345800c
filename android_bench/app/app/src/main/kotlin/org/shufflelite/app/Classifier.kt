package org.shufflelite.app

import android.content.res.AssetManager
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Interpreter

private const val FOLDER = "bundle" // in the assets

/** The bundle's network, on the CPU by XNNPACK. Not for two threads at a time. */
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

    /** The most probable classes, and how long the network computed in nanoseconds. */
    fun classify(picture: Picture, count: Int): Pair<List<Answer>, Long> {
        val input = toInput(resizeAndCrop(picture, network), network)
        val output = emptyOutput(network)
        val start = System.nanoTime()
        interpreter.run(input, output)
        val took = System.nanoTime() - start
        return best(output, network, count) to took
    }

    /** The class's name, or its number where the bundle names none. */
    fun label(answer: Answer): String = labels.getOrElse(answer.index) { "class ${answer.index}" }

    override fun close() = interpreter.close()
}
