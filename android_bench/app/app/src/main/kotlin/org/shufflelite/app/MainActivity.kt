package org.shufflelite.app

import android.app.Activity
import android.content.Intent
import android.net.Uri
import android.os.Build
import android.os.Bundle
import android.provider.MediaStore
import android.widget.Button
import android.widget.ImageView
import android.widget.TextView
import java.io.IOException
import java.util.concurrent.Executors

private const val PICK = 1
private const val ANSWERS = 5
private const val THREADS = 4

/** Lets the user pick a photo and shows its most probable classes. */
class MainActivity : Activity() {
    private val worker = Executors.newSingleThreadExecutor()
    private var classifier: Classifier? = null // used by the worker only

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(R.layout.main)
        findViewById<Button>(R.id.pick).setOnClickListener {
            startActivityForResult(pickIntent(), PICK)
        }
        onWorker {
            classifier = Classifier(assets, THREADS).also { show(it.network.name) }
        }
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        super.onActivityResult(request, result, data)
        val uri = data?.data
        if (request == PICK && result == RESULT_OK && uri != null) onWorker { classify(uri) }
    }

    override fun onDestroy() {
        onWorker { classifier?.close() }
        worker.shutdown()
        super.onDestroy()
    }

    /** The photo picker; before Android 13, a file picker. Neither needs a permission. */
    private fun pickIntent(): Intent {
        val isThere = Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU
        val action = if (isThere) MediaStore.ACTION_PICK_IMAGES else Intent.ACTION_GET_CONTENT
        return Intent(action).setType("image/*")
    }

    private fun classify(uri: Uri) {
        val classifier = classifier ?: return // the reason is on the screen
        val picture = readPhoto(contentResolver, uri)
        val small = thumbnail(picture)
        runOnUiThread { findViewById<ImageView>(R.id.photo).setImageBitmap(small) }
        val (answers, nanoseconds) = classifier.classify(picture, ANSWERS)
        val lines = answers.map { "%5.1f %%  %s".format(100 * it.score, classifier.label(it)) }
        show(lines.joinToString("\n") + "\n\n%.2f ms".format(nanoseconds / 1e6))
    }

    private fun onWorker(work: () -> Unit) = worker.execute {
        try {
            work()
        } catch (error: IOException) {
            show("$error")
        } catch (_: OutOfMemoryError) {
            show("This photo is too large for the app's memory: pick a smaller one.")
        }
    }

    private fun show(text: String) = runOnUiThread {
        findViewById<TextView>(R.id.answer).text = text
    }
}
