"""What Python 2 had and Python 3 has under another name, or no longer: tables for python2_names.py."""

from __future__ import annotations

# Builtins; the second table's names are ordinary words, so that only a call counts.
BUILTINS = {
    "xrange": "range",
    "raw_input": "input",
    "unicode": "str",
    "long": "int",
    "basestring": "str",
    "unichr": "chr",
    "reduce": "functools.reduce",
    "cmp": "(a > b) - (a < b)",
    "execfile": "exec(open(f).read())",
    "StandardError": "Exception",
}
CALLED_BUILTINS = {  # what Python 3 has, and how many arguments the builtin took
    "apply": ("f(*args)", (2, 3)),
    "buffer": ("memoryview", (1, 2, 3)),
    "coerce": ("nothing like it", (2,)),
    "file": ("open", (1, 2, 3)),
    "intern": ("sys.intern", (1,)),
    "reload": ("importlib.reload", (1,)),
}

# Methods called without arguments. KEPT_BY: libraries whose own methods of these names are as Python 2's were.
METHODS = {
    "iteritems": "items",
    "iterkeys": "keys",
    "itervalues": "values",
    "viewitems": "items",
    "viewkeys": "keys",
    "viewvalues": "values",
    "next": "next(x)",
    "xreadlines": "a loop over the file",
}
# `.next()` is a method of many players, cursors and lexers: it counts on what is an iterator by its making or its name.
ITERATOR_CALLS = {"iter", "enumerate", "imap", "izip", "map", "zip", "filter", "reversed", "open", "file", "finditer"}
ITERATOR_CALLS |= {"reader", "DictReader", "walk", "count", "cycle", "chain", "islice", "xreadlines", "iteritems"}
ITERATOR_NAMES = {"it", "iter", "iterator", "gen", "generator", "reader", "csv_reader", "csvreader"}
KEPT_BY = {
    "has_key": {"curses"},
    "items": {"email", "mailbox"},
    "iteritems": {"mailbox", "pandas"},
    "iterkeys": {"diskcache", "mailbox"},
    "itervalues": {"mailbox"},
    "keys": {"dbm", "email", "fontTools", "mailbox", "pandas"},
    "next": {"bdb", "idlelib", "mailbox", "multiprocessing", "nntplib", "pdb", "tarfile"},
    "values": {"django", "email", "mailbox", "torch"},  # a query's values() can be sliced
}

ATTRIBUTES = {
    "func_closure": "__closure__",
    "func_code": "__code__",
    "func_defaults": "__defaults__",
    "func_dict": "__dict__",
    "func_doc": "__doc__",
    "func_globals": "__globals__",
    "func_name": "__name__",
    "im_class": "__self__.__class__",
    "im_func": "__func__",
    "im_self": "__self__",
}
FUNCTION_NAMES = {"f", "fn", "fun", "func", "function", "meth", "method", "wrapped", "callback", "im_func", "__func__"}

# Special methods, and the one that Python 3 calls instead: a class that has both serves both.
SPECIAL_METHODS = {
    "__nonzero__": "__bool__",
    "__cmp__": "__lt__",
    "__unicode__": "__str__",
    "__div__": "__truediv__",
    "__idiv__": "__itruediv__",
    "__getslice__": "__getitem__",
    "__setslice__": "__setitem__",
    "__delslice__": "__delitem__",
    "__coerce__": "nothing",
}

MODULES = {
    "BaseHTTPServer": "http.server",
    "CGIHTTPServer": "http.server",
    "ConfigParser": "configparser",
    "Cookie": "http.cookies",
    "DocXMLRPCServer": "xmlrpc.server",
    "HTMLParser": "html.parser",
    "Queue": "queue",
    "SimpleHTTPServer": "http.server",
    "SimpleXMLRPCServer": "xmlrpc.server",
    "SocketServer": "socketserver",
    "StringIO": "io",
    "Tkinter": "tkinter",
    "UserDict": "collections",
    "UserList": "collections",
    "UserString": "collections",
    "__builtin__": "builtins",
    "_winreg": "winreg",
    "anydbm": "dbm",
    "cPickle": "pickle",
    "cStringIO": "io",
    "commands": "subprocess",
    "cookielib": "http.cookiejar",
    "copy_reg": "copyreg",
    "dbhash": "dbm",
    "dumbdbm": "dbm.dumb",
    "email.MIMEBase": "email.mime.base",
    "email.MIMEImage": "email.mime.image",
    "email.MIMEMultipart": "email.mime.multipart",
    "email.MIMEText": "email.mime.text",
    "email.Encoders": "email.encoders",
    "email.Utils": "email.utils",
    "exceptions": "all exceptions among its builtins",
    "gdbm": "dbm.gnu",
    "htmlentitydefs": "html.entities",
    "httplib": "http.client",
    "md5": "hashlib",
    "popen2": "subprocess",
    "rfc822": "email",
    "robotparser": "urllib.robotparser",
    "sets": "set",
    "sgmllib": "html.parser",
    "sha": "hashlib",
    "thread": "threading",
    "tkFileDialog": "tkinter.filedialog",
    "tkMessageBox": "tkinter.messagebox",
    "tkSimpleDialog": "tkinter.simpledialog",
    "urllib2": "urllib.request",
    "urlparse": "urllib.parse",
    "whichdb": "dbm",
    "xmlrpclib": "xmlrpc.client",
}

# Words that a program may call a module of its own by: Python 2's is meant where one of these members is used.
EVERYDAY_MODULES = {
    "commands": {"getoutput", "getstatus", "getstatusoutput", "mkarg"},
    "exceptions": {"ArithmeticError", "BaseException", "EnvironmentError", "Exception", "IOError", "ImportError"}
    | {"IndexError", "KeyError", "NotImplementedError", "OSError", "RuntimeError", "StandardError", "TypeError"}
    | {"ValueError", "Warning"},
    "md5": {"md5", "new"},
    "sets": {"BaseSet", "ImmutableSet", "Set"},
    "sha": {"new", "sha"},
    "thread": {"allocate_lock", "error", "exit", "get_ident", "interrupt_main", "start_new", "start_new_thread"},
}

_STRING = (
    "atof atoi atol capitalize center count expandtabs find index join joinfields letters ljust lower lowercase lstrip "
    "maketrans replace rfind rindex rjust rsplit rstrip split splitfields strip swapcase translate upper uppercase "
    "zfill"
)
_URLLIB = (
    "URLopener FancyURLopener getproxies pathname2url quote quote_plus unquote unquote_plus url2pathname urlcleanup "
    "urlencode urlopen urlretrieve"
)
_TYPES = (
    "BooleanType ClassType ComplexType DictType DictionaryType FileType FloatType InstanceType IntType ListType "
    "LongType ObjectType SliceType StringType StringTypes TupleType UnboundMethodType UnicodeType XRangeType"
)
MEMBERS = {
    module: frozenset(names.split())
    for module, names in {
        "string": _STRING,
        "urllib": _URLLIB,
        "types": _TYPES,
        "itertools": "ifilter ifilterfalse imap izip izip_longest",
        "sys": "exc_clear exc_traceback exc_type exc_value maxint setdefaultencoding",
        "os": "errno getcwdu popen2 popen3 popen4 tempnam tmpnam",
        "operator": "div irepeat isCallable isMappingType isNumberType isSequenceType repeat sequenceIncludes",
        "fractions": "gcd",
    }.items()
}

# Codecs from text to text, that str.encode and str.decode no longer take.
TEXT_CODECS = {"base64", "bz2", "hex", "rot13", "rot_13", "string_escape", "unicode_internal", "uu", "zlib"}
