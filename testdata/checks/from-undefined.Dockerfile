FROM ${nowhere:-scratch}
