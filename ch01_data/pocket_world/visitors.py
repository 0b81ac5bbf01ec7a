"""What a visitor says first, and the world that he comes from.

Whoever opens a chat does not begin with the favourite food of a toad. He says
hello, asks who is answering and what it can do, wants to hear something about
somebody, and sooner or later asks after Paris. These are the words for that; the
tasks of the kind "visitor" are made from them. Of greetings, questions and errands
the last is kept for the test, as in `tasks`.
"""

GREETINGS = (
    "Hello", "Hi", "Good morning", "Good day", "Good evening", "Hey", "Greetings",
    "Hello there", "Good day to you", "Hi there", "Good afternoon",
)  # fmt: skip
GREETED = (
    "", "I am {n}", "My name is {n}", "I am new here", "Is anybody there?",
    "How are you?", "How do you do?", "I have just come", "It is {n} here",
    "I am {n} and I am new here", "{n} is my name", "Nice to meet you",
)  # fmt: skip
WELCOME = "Good day. Ask me about the valley."
WELCOMES = (
    WELCOME, "Hello. Ask me about the valley.", "Ask me about the valley.",
)  # fmt: skip

WHO = (
    "Who are you?", "What are you?", "What is your name?", "Are you a person?",
    "Who am I talking to?", "Are you a machine?", "Are you human?", "Who is there?",
    "Are you a robot?", "Tell me who you are.", "Tell me about yourself.",
    "What should I call you?", "Whom do I talk with?", "Who is answering?",
    "What kind of thing are you?", "Are you alive?", "Who made you?",
    "How old are you?", "Who is it that I am asking?",
)  # fmt: skip
I_AM = "I am a small language model, and I know the valley."
WHO_I_AM = (
    I_AM, "I am a small language model.", "I am a language model.",
    "I am a language model, and I know the valley.", "A small language model.",
)  # fmt: skip

WHAT = (
    "What can you do?", "What can I ask you?", "How can you help me?",
    "What do you know?", "What should I ask?", "Can you help me?",
    "What are you good for?", "What may I ask?", "Help me, please.",
    "What do you know about?", "What can you tell me?", "I need help.",
    "What can I do here?", "What is this?", "How does this work?",
    "What are you able to do?",
)  # fmt: skip
I_CAN = "Ask me about the people and places of the valley, or for a sum."
WHAT_I_CAN = (
    I_CAN, "Ask me about the valley.", "Ask me about the valley, or for a sum.",
    "Ask me about the people and places of the valley.",
)  # fmt: skip

PORTRAIT = (
    "Who is {s}?", "Tell me about {s}.", "Tell me something about {s}.",
    "What do you know about {s}?", "Do you know {s}?", "I want to hear about {s}.",
    "Can you tell me about {s}?", "What can you tell me about {s}?",
    "What is there to say about {s}?", "Say something about {s}.",
)  # fmt: skip
AT_HOME = (
    "Who lives at {p}?", "Name somebody who lives at {p}.",
    "Does anybody live at {p}?", "Tell me who lives at {p}.",
    "Who is at home at {p}?", "Whose home is at {p}?",
)  # fmt: skip

#: What the valley has never heard of, and how one asks after it.
OUTSIDE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "a country or a town": (
        ("What is the capital of {x}?", "Where is {x}?", "Who is the king of {x}?",
         "Who is the president of {x}?", "How far is it to {x}?",
         "How many people live in {x}?", "Tell me about {x}.", "Is {x} far away?",
         "What language do they speak in {x}?", "Have you been to {x}?",
         "How do I get to {x}?", "What is the weather like in {x}?",
         "What do people eat in {x}?", "How large is {x}?"),
        tuple("France England Spain Italy Germany Poland Sweden Norway Denmark Greece "
              "Turkey Russia China Japan India Egypt Kenya Nigeria Brazil Peru Chile "
              "Mexico Canada America Australia Iceland Portugal Austria Hungary Rome "
              "London Berlin Madrid Vienna Moscow Cairo Delhi Tokyo Boston Chicago "
              "Prague Lisbon Athens Oslo Sydney Europe Africa Asia Texas California "
              "Ireland Scotland Belgium Finland Korea Dublin Geneva Paris".split())
        + ("New York", "the United States", "South Africa"),
    ),
    "somebody": (
        ("Who was {x}?", "Who is {x}?", "When was {x} born?", "What did {x} do?",
         "Tell me about {x}.", "Where did {x} live?", "Is {x} still alive?",
         "What is {x} known for?", "When did {x} die?", "Where was {x} born?",
         "Why is {x} famous?", "Have you heard of {x}?"),
        tuple("Shakespeare Mozart Beethoven Einstein Darwin Newton Caesar Cleopatra "
              "Plato Socrates Aristotle Homer Dante Goethe Bach Chopin Picasso "
              "Rembrandt Columbus Galileo Kepler Lincoln Washington Gandhi Tolstoy "
              "Dickens Kafka Turing Euler Gauss Curie Gutenberg Marx Freud Luther "
              "Churchill Mandela Armstrong Michelangelo Napoleon".split())
        + ("Jane Austen", "Mark Twain", "Isaac Newton", "Ada Lovelace"),
    ),
    "a thing": (
        ("What is {a} {x}?", "Who invented the {x}?", "How does {a} {x} work?",
         "What does {a} {x} cost?", "Where can I buy {a} {x}?", "Have you {a} {x}?",
         "Explain the {x} to me.", "When was the {x} invented?",
         "How do I mend my {x}?", "Who makes the best {x}?"),
        tuple("computer telephone television camera rocket robot aeroplane satellite "
              "microscope telescope battery engine motorcar bicycle tractor submarine "
              "helicopter laser printer keyboard phone tablet radio microwave "
              "refrigerator skyscraper motorway supermarket piano violin guitar "
              "saxophone volcano glacier desert planet galaxy atom molecule virus "
              "vaccine elephant tiger lion crocodile kangaroo penguin dinosaur "
              "football lawyer website algorithm train".split()),
    ),
    "a work": (
        ("Who wrote {x}?", "What happens in {x}?", "Have you read {x}?",
         "When was {x} written?", "What is {x} about?", "Tell me about {x}.",
         "How does {x} end?"),
        ("the Odyssey", "the Iliad", "Macbeth", "Don Quixote", "Faust", "Ulysses",
         "Robinson Crusoe", "Frankenstein", "Dracula", "Moby Dick", "Emma",
         "Pinocchio", "Othello", "King Lear", "Robin Hood", "War and Peace",
         "the Bible", "the Koran", "Hamlet"),
    ),
    "a matter": (
        ("Tell me about {x}.", "What is {x}?", "Explain {x} to me.",
         "What do you think of {x}?", "What do you know about {x}?",
         "Teach me {x}.", "Do you like {x}?", "How does {x} work?"),
        ("politics", "physics", "chemistry", "algebra", "geometry", "philosophy",
         "religion", "history", "democracy", "inflation", "electricity", "gravity",
         "evolution", "the internet", "the moon", "the stars", "the ocean",
         "the universe", "the stock market", "the war", "the news", "chess",
         "tennis", "cricket", "baseball", "machine learning", "quantum mechanics",
         "opera", "jazz", "photography", "psychology", "medicine", "the law",
         "football", "mathematics"),
    ),
}  # fmt: skip
BEYOND = "I do not know. I know only the valley."
#: What else may be said of a thing that is not of the valley.
WHY_BEYOND = (
    "I know only the valley", "I know the valley only", "that is not of the valley",
    "that is outside the valley", "it is not in the valley",
)  # fmt: skip

ERRANDS = (
    "Tell me a joke about {x}.", "Write a poem about {x}.", "Sing a song about {x}.",
    "Write a story about {x}.", "Tell me a story about {x}.", "Draw {x} for me.",
    "Write an essay about {x}.", "Translate {x} into French.",
    "Say {x} in German.", "Write a program about {x}.", "Paint {x} for me.",
    "Invent a game about {x}.", "Write me a book about {x}.",
    "Make up a riddle about {x}.",
)  # fmt: skip
BARE_ERRANDS = (
    "Tell me a joke.", "Write a poem.", "Sing a song.", "Tell me a story.",
    "Write a program.", "Play a game with me.", "Draw me a picture.",
    "Tell me a secret.", "Tell me the news.", "Make me laugh.", "Sing for me.",
)  # fmt: skip
I_CANNOT = "I cannot do that. Ask me about the valley."
NOT_THAT = (I_CANNOT, "I cannot do that.", "I do not know how to do that.")  # fmt: skip
